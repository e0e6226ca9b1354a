// SPDX-License-Identifier: Apache-2.0
// Resolving and checking a warp's access. The usual warp stays inside one allocation and is
// aligned: one look at the lowest and the highest address settles it, without a branch a lane. Only
// where that fails are the lanes looked at one by one.
#include "access.h"

#include <algorithm>
#include <bit>
#include <cstdio>

#include "../checks/races.h"
#include "../checks/report.h"
#include "../counters/counters.h"
#include "../machine/block.h"
#include "../machine/lanes.h"
#include "../machine/program.h"
#include "memory_map.h"

namespace longclock::emulator {
namespace {

using ptx::Space;

uint64_t value_of(const void* p) { return reinterpret_cast<uint64_t>(p); }

// What this thread found last, a slot per 4 KiB page. Code is shared between workers, so nothing
// can be kept at the instruction.
Allocation* find_cached(uint64_t address) {
  struct Slot {
    uint64_t page = 0;
    uint64_t generation = 0;  // the map's begins at 1
    Allocation* allocation = nullptr;
  };
  constexpr unsigned kSlots = 256;
  thread_local Slot slots[kSlots];
  MemoryMap& map = memory_map();
  const uint64_t page = address >> 12, generation = map.generation();
  Slot& slot = slots[(page ^ (page >> 8)) % kSlots];
  if (slot.page == page && slot.generation == generation && slot.allocation->contains(address, 1)) {
    return slot.allocation;
  }
  Allocation* found = map.find(address);
  if (found != nullptr && found->contains(address, 1)) slot = {page, generation, found};
  return found;
}

std::string hexadecimal(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string bytes_text(uint64_t bytes) {
  return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

std::string allocation_text(const Allocation& a) {
  const std::string size = bytes_text(a.bytes);
  switch (a.kind) {
    case MemoryKind::variable:
      return "variable " + a.name + " (" + size + ")";
    case MemoryKind::constant:
      return "__constant__ variable " + a.name + " (" + size + ")";
    case MemoryKind::managed:
      return "a managed allocation of " + size;
    case MemoryKind::pinned:
      return "a pinned host allocation of " + size;
    case MemoryKind::declared:
      return "a declared host range of " + size;
    case MemoryKind::device:
      break;
  }
  return "an allocation of " + size;
}

std::string place_text(uint64_t address, uint64_t begin, uint64_t end, const std::string& what) {
  if (address < begin) return bytes_text(begin - address) + " before the begin of " + what;
  if (address < end) return bytes_text(end - address) + " before the end of " + what;
  if (address == end) return "at the end of " + what;
  return bytes_text(address - end) + " past the end of " + what;
}

class Checker {
 public:
  Checker(Warp& w, const Instruction& in, Access& a)
      : w_(w), in_(in), a_(a), checks_(w.block->grid->options.checks) {}

  uint32_t run(uint32_t lanes) {
    switch (a_.space) {
      case Space::none:
        return generic(lanes);
      case Space::shared:
        return shared(lanes);
      case Space::local:
        return local(lanes);
      case Space::param:
        return parameters(lanes);
      default:
        return global(lanes);
    }
  }

  uint32_t without_undefined_addresses(uint32_t lanes) {
    const uint32_t bad = lanes & a_.undefined_address;
    if (bad == 0) return lanes;
    for_lanes(bad, [&](unsigned l) {
      fault(l, Fault::uninitialised, verb() + ": the address depends on a value that nobody wrote");
    });
    return lanes & ~bad;
  }

 private:
  bool on(Check check) const { return (checks_ & check) != 0; }
  std::string verb() const {
    const char* what = a_.read && a_.write ? "atomic access" : a_.write ? "write" : "read";
    return std::to_string(a_.bytes) + "-byte " + what;
  }
  uint32_t alignment() const { return a_.align != 0 ? a_.align : a_.bytes; }
  bool races() const { return on(kCheckRaces) && w_.block->races != nullptr && !a_.exempt; }

  void fault(unsigned l, Fault fault, const std::string& message) {
    report(w_, in_, l, fault, a_.address[l], message);
  }
  void outside(unsigned l, const char* space, const std::string& place) {
    fault(l, Fault::out_of_bounds,
          verb() + " of " + space + " memory: address " + hexadecimal(a_.address[l]) + " is " +
              place);
  }
  bool misaligned(unsigned l) {
    if ((a_.address[l] & (alignment() - 1)) == 0) return false;
    fault(l, Fault::misaligned,
          verb() + ": address " + hexadecimal(a_.address[l]) + " is not a multiple of " +
              std::to_string(alignment()));
    return true;
  }

  // Lowest and highest address of the lanes, and all of them ORed. Signed, as vector instructions
  // compare: what is above 2^63 fails the test that follows all the same.
  struct Extent {
    int64_t low, high;
    uint64_t bits;
  };
  Extent extent(uint32_t lanes) const {
    alignas(64) int64_t v[kWarpLanes];
    const int64_t first = static_cast<int64_t>(a_.address[std::countr_zero(lanes)]);
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      v[l] = (lanes >> l) & 1 ? static_cast<int64_t>(a_.address[l]) : first;
    }
    Extent e{first, first, 0};
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      e.low = v[l] < e.low ? v[l] : e.low;
      e.high = v[l] > e.high ? v[l] : e.high;
      e.bits |= static_cast<uint64_t>(v[l]);
    }
    return e;
  }

  void fill(std::byte** out, const std::byte* base, uint64_t stride = 0) const {
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      out[l] = reinterpret_cast<std::byte*>(value_of(base) + a_.address[l] + l * stride);
    }
  }
  void fill_undefined(const std::byte* base, uint64_t stride = 0) {
    a_.tracked = base != nullptr;
    if (a_.tracked) {
      fill(a_.undefined, base, stride);
    } else {
      std::fill_n(a_.undefined, kWarpLanes, nullptr);
    }
  }

  // Lanes of [0, size) that are aligned; for spaces that are one range.
  template <class Outside>
  uint32_t inside(uint32_t lanes, uint64_t size, Outside outside_text) {
    if (!on(kCheckBounds)) return lanes;
    const Extent e = extent(lanes);
    const bool fits = e.low >= 0 && static_cast<uint64_t>(e.high) + a_.bytes <= size;
    if (fits && (e.bits & (alignment() - 1)) == 0) return lanes;
    uint32_t good = lanes;
    for_lanes(lanes, [&](unsigned l) {
      if (a_.address[l] > size || a_.address[l] + a_.bytes > size) {
        outside_text(l);
        good &= ~(1u << l);
      } else if (misaligned(l)) {
        good &= ~(1u << l);
      }
    });
    return good;
  }

  PlaceCounters& place(LaunchCounters& counters) const {
    const Instruction* first = w_.block->grid->program->code.data();
    PlaceCounters& found = counters.places[static_cast<size_t>(&in_ - first)];
    found.lane_bytes = a_.bytes;
    return found;
  }

  uint32_t shared(uint32_t lanes) {
    Block& b = *w_.block;
    lanes = inside(lanes, b.shared_bytes, [&](unsigned l) {
      outside(l, "shared",
              place_text(a_.address[l], 0, b.shared_bytes,
                         "the block's " + bytes_text(b.shared_bytes) + " of shared memory"));
    });
    if (lanes == 0) return 0;
    fill(a_.data, b.shared);
    fill_undefined(b.shared_undefined);
    if (b.shared_cells != nullptr && races()) {
      RaceCell* cells[kWarpLanes];
      for (unsigned l = 0; l < kWarpLanes; ++l) {
        cells[l] = b.shared_cells + static_cast<uint32_t>(a_.address[l]) / 4;
      }
      check_races(w_, in_, a_, lanes, cells, a_.values);
    }
    if (b.counters != nullptr && !a_.silent) {
      LaunchCounters& c = *b.counters;
      const SharedCounters request = count_shared(a_, lanes);
      (a_.read && a_.write ? c.shared_atomics
       : a_.write          ? c.shared_stores
                           : c.shared_loads) += request;
      place(c).shared += request;
    }
    return lanes;
  }

  uint32_t local(uint32_t lanes) {
    lanes = inside(lanes, w_.local_stride, [&](unsigned l) {
      outside(l, "local",
              place_text(a_.address[l], 0, w_.local_stride,
                         "the thread's " + bytes_text(w_.local_stride) + " of local memory"));
    });
    fill(a_.data, w_.local, w_.local_stride);
    fill_undefined(w_.local_undefined, w_.local_stride);
    if (LaunchCounters* c = w_.block->counters; c != nullptr && !a_.silent) {
      const uint64_t bytes = uint64_t{a_.bytes} * static_cast<unsigned>(std::popcount(lanes));
      (a_.write ? c->local_store_bytes : c->local_load_bytes) += bytes;
    }
    return lanes;
  }

  uint32_t parameters(uint32_t lanes) {
    const auto& bytes = w_.block->grid->parameters;
    lanes = inside(lanes, bytes.size(), [&](unsigned l) {
      outside(l, "param",
              place_text(a_.address[l], 0, bytes.size(),
                         "the kernel's " + bytes_text(bytes.size()) + " of parameters"));
    });
    if (a_.write && on(kCheckBounds)) {
      for_lanes(lanes, [&](unsigned l) {
        fault(l, Fault::read_only, verb() + ": the kernel's parameters are read only");
      });
      return 0;
    }
    fill(a_.data, bytes.data());
    fill_undefined(nullptr);
    return lanes;
  }

  // Whether lane l may touch what was found for it; reports.
  bool allowed(unsigned l, const Allocation* found) {
    const uint64_t address = a_.address[l];
    if (found == nullptr || !found->contains(address, a_.bytes)) {
      outside(l, a_.space == Space::constant ? "constant" : "global", nearest_text(address, found));
    } else if (found->freed) {
      fault(l, Fault::freed,
            verb() + ": address " + hexadecimal(address) + " is " +
                bytes_text(address - found->begin) + " into " + allocation_text(*found) +
                " that was freed");
    } else if (a_.write && found->read_only) {
      fault(l, Fault::read_only,
            verb() + ": address " + hexadecimal(address) + " is in " + allocation_text(*found) +
                ", which is read only");
    } else {
      return !misaligned(l);
    }
    return false;
  }
  std::string nearest_text(uint64_t address, const Allocation* found) const {
    if (address < 65536) return "a null pointer";
    const Block& b = *w_.block;
    constexpr uint64_t kNear = uint64_t{1} << 20;
    const uint64_t shared = value_of(b.shared);
    if (b.shared_bytes != 0 && address + 4096 > shared &&
        address < shared + b.shared_bytes + 4096) {
      return place_text(address, shared, shared + b.shared_bytes,
                        "the block's " + bytes_text(b.shared_bytes) + " of shared memory");
    }
    if (found == nullptr || address + kNear < found->begin ||
        address > found->begin + found->bytes + kNear) {
      return "in no allocation, and none is near";
    }
    return place_text(address, found->begin, found->begin + found->bytes,
                      allocation_text(*found) + (found->freed ? " that was freed" : ""));
  }

  uint32_t global(uint32_t lanes) {
    fill(a_.data, nullptr);
    if ((checks_ & (kCheckBounds | kCheckInitialised | kCheckRaces)) == 0) {
      fill_undefined(nullptr);
    } else {
      const Extent e = extent(lanes);
      Allocation* found = find_cached(static_cast<uint64_t>(e.low));
      const uint64_t size = static_cast<uint64_t>(e.high - e.low) + a_.bytes;
      if (found != nullptr && found->contains(static_cast<uint64_t>(e.low), size) &&
          !found->freed && !(a_.write && found->read_only) && (e.bits & (alignment() - 1)) == 0) {
        in_one(*found, lanes);
      } else {
        lanes = in_several(lanes);
      }
    }
    LaunchCounters* c = w_.block->counters;
    if (lanes != 0 && c != nullptr && !a_.silent && a_.space != Space::constant) {
      const MemoryCounters request = count_global(a_, lanes);
      (a_.read && a_.write ? c->global_atomics
       : a_.write          ? c->global_stores
                           : c->global_loads) += request;
      place(*c).global += request;
    }
    return lanes;
  }

  void in_one(Allocation& found, uint32_t lanes) {
    const bool tracked = found.undefined != nullptr && w_.undefined != nullptr;
    // Base of a shadow that is indexed by address.
    fill_undefined(
        !tracked ? nullptr
                 : reinterpret_cast<const std::byte*>(value_of(found.undefined) - found.begin));
    if (!races() || found.read_only || a_.space == Space::constant) return;
    RaceCell* const first = found.race_cells();
    if (first == nullptr) return;
    RaceCell* cells[kWarpLanes];
    const uint64_t begin = found.begin & ~uint64_t{3};
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      cells[l] = reinterpret_cast<RaceCell*>(value_of(first) +
                                             (a_.address[l] - begin) / 4 * sizeof(RaceCell));
    }
    check_races(w_, in_, a_, lanes, cells, a_.values);
  }

  uint32_t in_several(uint32_t lanes) {
    fill_undefined(nullptr);
    RaceCell* cells[kWarpLanes] = {};
    uint32_t good = lanes, raced = 0;
    const bool check = races() && a_.space != Space::constant;
    for_lanes(lanes, [&](unsigned l) {
      Allocation* found = find_cached(a_.address[l]);
      if (on(kCheckBounds) && !allowed(l, found)) {
        good &= ~(1u << l);
        return;
      }
      if (found == nullptr || !found->contains(a_.address[l], a_.bytes) || found->freed) return;
      if (found->undefined != nullptr && w_.undefined != nullptr) {
        a_.undefined[l] = found->undefined + (a_.address[l] - found->begin);
        a_.tracked = true;
      }
      if (!check || found->read_only) return;
      RaceCell* const first = found->race_cells();
      if (first == nullptr) return;
      cells[l] = first + found->word_of(a_.address[l]);
      raced |= 1u << l;
    });
    if (raced != 0) check_races(w_, in_, a_, raced, cells, a_.values);
    return good;
  }

  // Generic addresses are host addresses, so that spaces are ranges.
  uint32_t generic(uint32_t lanes) {
    const Block& b = *w_.block;
    const uint64_t shared = value_of(b.shared), local = value_of(w_.local);
    const auto& parameters = b.grid->parameters;
    const uint64_t local_bytes = w_.local_stride * kWarpLanes;
    alignas(32) uint8_t in_shared[kWarpLanes], in_local[kWarpLanes], in_parameters[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      const uint64_t x = a_.address[l];
      in_shared[l] = x - shared < b.shared_bytes ? 0xff : 0;
      in_local[l] = x - local < local_bytes ? 0xff : 0;
      in_parameters[l] = x - value_of(parameters.data()) < parameters.size() ? 0xff : 0;
    }
    const uint32_t masks[] = {pack_lanes(in_shared) & lanes, pack_lanes(in_local) & lanes,
                              pack_lanes(in_parameters) & lanes};
    const Space spaces[] = {Space::shared, Space::local, Space::param};
    const uint64_t bases[] = {shared, local, value_of(parameters.data())};
    uint32_t rest = lanes;
    for (unsigned s = 0; s < 3; ++s) {
      if (masks[s] == 0) continue;
      if (masks[s] == lanes) {
        to_space(a_, spaces[s], bases[s]);
        return run(lanes);
      }
      rest &= ~masks[s];
    }
    if (rest == lanes) {
      a_.space = Space::global;
      return run(lanes);
    }
    uint32_t good = 0;
    bool tracked = false;
    const auto part = [&](uint32_t mask, Space space, uint64_t base) {
      if (mask == 0) return;
      Access of_space = a_;
      to_space(of_space, space, base);
      const uint32_t kept = Checker(w_, in_, of_space).run(mask);
      for_lanes(kept, [&](unsigned l) {
        a_.data[l] = of_space.data[l];
        a_.undefined[l] = of_space.undefined[l];
      });
      tracked |= of_space.tracked;
      good |= kept;
    };
    for (unsigned s = 0; s < 3; ++s) part(masks[s], spaces[s], bases[s]);
    part(rest, Space::global, 0);
    a_.tracked = tracked;
    return good;
  }
  void to_space(Access& a, Space space, uint64_t base) const {
    a.space = space;
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      a.address[l] -= base + (space == Space::local ? l * w_.local_stride : 0);
    }
  }

  Warp& w_;
  const Instruction& in_;
  Access& a_;
  uint32_t checks_;
};

}  // namespace

void gather_addresses(const Warp& w, const Instruction& in, unsigned operand, Access& a) {
  const Operand& base = in.operands[operand];
  if (base.bits == 32) {
    const uint32_t* row = w.source<uint32_t>(base);
    const uint32_t offset = static_cast<uint32_t>(in.immediate);
    for (unsigned l = 0; l < kWarpLanes; ++l) a.address[l] = row[l] + offset;
  } else {
    const uint64_t* row = w.source<uint64_t>(base);
    const uint64_t offset = static_cast<uint64_t>(in.immediate);
    for (unsigned l = 0; l < kWarpLanes; ++l) a.address[l] = row[l] + offset;
  }
  a.undefined_address = w.undefined != nullptr ? w.undefined_lanes(base) : 0;
}

uint32_t check_access(Warp& w, const Instruction& in, Access& a) {
  Checker check(w, in, a);
  a.tracked = false;
  const uint32_t lanes = check.without_undefined_addresses(a.lanes);
  return lanes == 0 ? 0 : check.run(lanes);
}

}  // namespace longclock::emulator
