// SPDX-License-Identifier: Apache-2.0
#include "counters.h"

#include <algorithm>
#include <bit>
#include <mutex>

#include "../emulator.h"
#include "../machine/lanes.h"
#include "../memory/memory_map.h"
#include "json.h"

namespace longclock::emulator {
namespace {

constexpr uint64_t kSectorBytes = 32;
constexpr uint32_t kBanks = 32;

constexpr const char* kUnitNames[] = {
    "integer",     "float32",      "float64",     "half",         "convert",    "move",
    "compare",     "special",      "tensor",      "shuffle",      "sync",       "atomic",
    "load_global", "store_global", "load_shared", "store_shared", "load_local", "store_local",
    "load_param",  "async",        "control"};
static_assert(std::size(kUnitNames) == static_cast<size_t>(Unit::count_));

struct Kept {
  std::mutex mutex;
  std::vector<LaunchCounters> launches;
};
Kept& kept() {
  static Kept& made = *new Kept;  // launches may come from static destructors
  return made;
}

// Distinct sectors of a request and which of their bytes it wants. At most 32 lanes of 16 bytes,
// each of which lies in one sector where it is aligned, in two where it is not.
struct Sectors {
  uint64_t index[2 * kWarpLanes];
  uint32_t bytes[2 * kWarpLanes];
  unsigned size = 0;

  void add(uint64_t sector, uint32_t mask) {
    for (unsigned i = size; i-- > 0;) {  // neighbours come one after the other
      if (index[i] == sector) {
        bytes[i] |= mask;
        return;
      }
    }
    index[size] = sector;
    bytes[size++] = mask;
  }
};

// Marks 4-byte granules as touched in this launch; returns how many were not, before.
unsigned touch(Allocation& allocation, uint64_t sector, uint32_t bytes) {
  const uint64_t begin = sector * kSectorBytes;
  if (begin + kSectorBytes <= allocation.begin || begin >= allocation.begin + allocation.bytes)
    return 0;
  std::atomic<uint64_t>* words = allocation.touched_words();
  unsigned fresh = 0;
  for (unsigned granule = 0; granule < 8; ++granule) {
    if ((bytes >> (4 * granule) & 0xf) == 0 || begin + 4 * granule < allocation.begin) continue;
    const uint64_t at = (begin + 4 * granule - allocation.begin) / 4;
    const uint64_t bit = uint64_t{1} << (at % 64);
    if ((words[at / 64].load(std::memory_order_relaxed) & bit) != 0) continue;
    fresh += (words[at / 64].fetch_or(bit, std::memory_order_relaxed) & bit) == 0;
  }
  return fresh;
}

void write(JsonWriter& json, const char* name, const MemoryCounters& c) {
  json.key(name)
      .open('{')
      .field("requests", c.requests)
      .field("bytes", c.bytes)
      .field("sectors", c.sectors);
  json.field("minimum_sectors", c.minimum_sectors).field("first_bytes", c.first_bytes);
  json.field("again_bytes", c.again_bytes).close('}');
}

void write(JsonWriter& json, const char* name, const SharedCounters& c) {
  json.key(name).open('{').field("requests", c.requests).field("wavefronts", c.wavefronts);
  json.field("minimum_wavefronts", c.minimum_wavefronts).close('}');
}

}  // namespace

MemoryCounters& MemoryCounters::operator+=(const MemoryCounters& o) {
  requests += o.requests;
  bytes += o.bytes;
  sectors += o.sectors;
  minimum_sectors += o.minimum_sectors;
  first_bytes += o.first_bytes;
  again_bytes += o.again_bytes;
  return *this;
}

SharedCounters& SharedCounters::operator+=(const SharedCounters& o) {
  requests += o.requests;
  wavefronts += o.wavefronts;
  minimum_wavefronts += o.minimum_wavefronts;
  return *this;
}

void PlaceCounters::add(const PlaceCounters& o) {
  lane_bytes = std::max(lane_bytes, o.lane_bytes);
  instructions += o.instructions;
  global += o.global;
  shared += o.shared;
}

MemoryCounters count_global(const Access& access, uint32_t lanes) {
  Sectors sectors;
  for_lanes(lanes, [&](unsigned l) {
    const uint64_t address = access.address[l];
    const uint64_t first = address / kSectorBytes,
                   last = (address + access.bytes - 1) / kSectorBytes;
    const auto ones = static_cast<uint32_t>((uint64_t{1} << access.bytes) - 1);
    sectors.add(first, ones << (address % kSectorBytes));
    if (last != first) sectors.add(last, ones >> (last * kSectorBytes - address));
  });
  unsigned unique = 0, fresh = 0, granules = 0;
  Allocation* allocation = nullptr;
  for (unsigned i = 0; i < sectors.size; ++i) {
    unique += static_cast<unsigned>(std::popcount(sectors.bytes[i]));
    const uint64_t at =
        sectors.index[i] * kSectorBytes + static_cast<unsigned>(std::countr_zero(sectors.bytes[i]));
    if (allocation == nullptr || !allocation->contains(at, 1)) allocation = memory_map().find(at);
    if (allocation == nullptr) continue;
    fresh += touch(*allocation, sectors.index[i], sectors.bytes[i]);
    for (unsigned g = 0; g < 8; ++g) granules += (sectors.bytes[i] >> (4 * g) & 0xf) != 0;
  }
  MemoryCounters counters;
  counters.requests = 1;
  counters.bytes = static_cast<uint64_t>(std::popcount(lanes)) * access.bytes;
  counters.sectors = sectors.size;
  counters.minimum_sectors = (unique + kSectorBytes - 1) / kSectorBytes;
  counters.first_bytes = 4 * fresh;
  counters.again_bytes = 4 * (granules - fresh);
  return counters;
}

// 4 bytes a lane pass in one wavefront, 8 bytes by half-warps, 16 bytes by quarters; of each part,
// as many wavefronts as the fullest bank has different words.
SharedCounters count_shared(const Access& access, uint32_t lanes) {
  const unsigned parts = access.bytes <= 4 ? 1 : access.bytes / 4;
  const unsigned part_lanes = kWarpLanes / parts;
  SharedCounters counters;
  counters.requests = 1;
  for (unsigned part = 0; part < parts; ++part) {
    const uint32_t mine =
        static_cast<uint32_t>(((uint64_t{1} << part_lanes) - 1) << (part * part_lanes)) & lanes;
    uint64_t words[4 * kWarpLanes];
    unsigned count = 0;
    for_lanes(mine, [&](unsigned l) {
      const uint64_t last = (access.address[l] + access.bytes - 1) / 4;
      for (uint64_t word = access.address[l] / 4; word <= last && count < std::size(words); ++word)
        words[count++] = word;
    });
    if (count == 0) continue;
    std::sort(words, words + count);
    const auto distinct = static_cast<unsigned>(std::unique(words, words + count) - words);
    unsigned banks[kBanks] = {};
    for (unsigned i = 0; i < distinct; ++i) ++banks[words[i] % kBanks];
    counters.wavefronts += *std::max_element(banks, banks + kBanks);
    counters.minimum_wavefronts += (distinct + kBanks - 1) / kBanks;
  }
  return counters;
}

void LaunchCounters::add(const LaunchCounters& o) {
  for (size_t i = 0; i < std::size(instructions); ++i) {
    instructions[i] += o.instructions[i];
    lane_instructions[i] += o.lane_instructions[i];
  }
  global_loads += o.global_loads;
  global_stores += o.global_stores;
  global_atomics += o.global_atomics;
  shared_loads += o.shared_loads;
  shared_stores += o.shared_stores;
  shared_atomics += o.shared_atomics;
  local_load_bytes += o.local_load_bytes;
  local_store_bytes += o.local_store_bytes;
  barriers += o.barriers;
  copy_waits += o.copy_waits;
  copy_wait_bytes += o.copy_wait_bytes;
  atomics += o.atomics;
  divergent_branches += o.divergent_branches;
  busiest_warp = std::max(busiest_warp, o.busiest_warp);
  if (of_multiprocessors.size() < o.of_multiprocessors.size()) {
    of_multiprocessors.resize(o.of_multiprocessors.size());
  }
  for (size_t i = 0; i < o.of_multiprocessors.size(); ++i) {
    of_multiprocessors[i] += o.of_multiprocessors[i];
  }
  if (places.size() < o.places.size()) places.resize(o.places.size());
  for (size_t pc = 0; pc < o.places.size(); ++pc) places[pc].add(o.places[pc]);
}

std::string LaunchCounters::json() const {
  JsonWriter json;
  json.open('{').field("kernel", kernel);
  json.field("grid", grid).field("block", block);
  json.field("shared_bytes", shared_bytes);
  uint64_t warps = 0, lanes = 0;
  const auto table = [&](const char* name, const uint64_t* values) {
    json.key(name).open('{');
    for (size_t i = 0; i < std::size(instructions); ++i) {
      if (values[i] != 0) json.field(kUnitNames[i], values[i]);
    }
    json.close('}');
  };
  table("instructions", instructions);
  table("lane_instructions", lane_instructions);
  for (size_t i = 0; i < std::size(instructions); ++i) {
    warps += instructions[i];
    lanes += lane_instructions[i];
  }
  json.key("lane_utilisation")
      .raw(warps == 0 ? "0"
                      : std::to_string(static_cast<double>(lanes) /
                                       static_cast<double>(warps * kWarpLanes)));
  write(json, "global_loads", global_loads);
  write(json, "global_stores", global_stores);
  write(json, "global_atomics", global_atomics);
  write(json, "shared_loads", shared_loads);
  write(json, "shared_stores", shared_stores);
  write(json, "shared_atomics", shared_atomics);
  json.field("local_load_bytes", local_load_bytes).field("local_store_bytes", local_store_bytes);
  json.field("barriers", barriers)
      .field("copy_waits", copy_waits)
      .field("copy_wait_bytes", copy_wait_bytes)
      .field("atomics", atomics)
      .field("divergent_branches", divergent_branches)
      .field("busiest_warp", busiest_warp)
      .field("multiprocessors", uint64_t{of_multiprocessors.size()})
      .field("busiest_multiprocessor",
             of_multiprocessors.empty() ? uint64_t{0} : std::ranges::max(of_multiprocessors));
  json.key("places").open('[');
  for (const PlaceCounters& place : places) {
    json.open('{').key("source").open('[');
    for (const std::string& at : place.source) json.value(at);
    json.close(']').field("instructions", place.instructions);
    if (place.lane_bytes != 0) json.field("lane_bytes", uint64_t{place.lane_bytes});
    if (place.global.requests != 0) write(json, "global", place.global);
    if (place.shared.requests != 0) write(json, "shared", place.shared);
    json.close('}');
  }
  json.close(']').close('}');
  return json.text();
}

void keep_counters(LaunchCounters counters) {
  const std::lock_guard lock(kept().mutex);
  kept().launches.push_back(std::move(counters));
}

std::string take_counters_json() {
  const std::lock_guard lock(kept().mutex);
  JsonWriter json;
  json.open('[');
  for (const LaunchCounters& launch : kept().launches) json.raw(launch.json());
  json.close(']');
  kept().launches.clear();
  return json.text();
}

}  // namespace longclock::emulator

const char* longclock_emulator_take_counters() {
  thread_local std::string text;
  text = longclock::emulator::take_counters_json();
  return text.c_str();
}
