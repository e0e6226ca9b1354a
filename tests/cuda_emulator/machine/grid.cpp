// SPDX-License-Identifier: Apache-2.0
// Runs a grid. Each host thread holds a few resident blocks and runs one of them, chosen at random
// by the seed, until it ends or only loops: it may wait for another block. Blocks become resident
// in the order of their indices, as on hardware: what waits for a lower block is sure to see it
// run.
#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "../checks/races.h"
#include "../checks/report.h"
#include "../counters/counters.h"
#include "../memory/memory_map.h"
#include "../memory/race_cell.h"
#include "../runtime/device_profile.h"
#include "async_copies.h"
#include "block.h"
#include "program.h"
#include "scheduler.h"
#include "workers.h"

namespace longclock::emulator {
namespace {

constexpr size_t kResidentBlocks = 4;  // a host thread; all of them in a cooperative launch
constexpr auto kPatience = std::chrono::seconds(20);  // without a barrier passed or a warp ended

constexpr uint64_t kSyncWorkspaceBytes = 256;
constexpr int kOutOfMemory = 2;  // cudaErrorMemoryAllocation

uint64_t align_up(uint64_t value, uint64_t align) { return (value + align - 1) / align * align; }

struct Shared {  // by the host threads of a launch
  Grid& grid;
  std::atomic<uint64_t> next_block{0};
  uint64_t blocks = 0;
  std::atomic<uint64_t> progress{0};
  std::vector<Executions> executions;  // summed at the end
  LaunchCounters counters;
  std::mutex mutex;

  explicit Shared(Grid& g) : grid(g) {}
};

// A block and the memory of its threads, used again for later blocks.
class Resident {
 public:
  Resident(Grid& grid, LaunchCounters* counters) : grid_(grid) {
    const Program& program = *grid.program;
    const LaunchConfig& config = grid.config;
    const uint32_t threads = config.block[0] * config.block[1] * config.block[2];
    block_.grid = &grid;
    block_.counters = counters;
    block_.shared_bytes = static_cast<uint32_t>(program.dynamic_shared_at + config.dynamic_shared);
    if (config.dynamic_shared == 0)
      block_.shared_bytes = static_cast<uint32_t>(program.facts.static_shared);
    local_stride_ = align_up(program.facts.local_bytes, 16);
    const bool defined = grid.checks(kCheckInitialised);
    shared_.resize(align_up(block_.shared_bytes, 256) + 256);
    block_.shared =
        reinterpret_cast<std::byte*>(align_up(reinterpret_cast<uint64_t>(shared_.data()), 256));
    if (defined) shared_undefined_.resize(block_.shared_bytes);
    if (grid.races) cells_.resize((block_.shared_bytes + 3) / 4);
    block_.shared_undefined = defined ? shared_undefined_.data() : nullptr;
    block_.shared_cells = grid.races ? cells_.data() : nullptr;

    block_.warps.resize((threads + kWarpLanes - 1) / kWarpLanes);
    const size_t warps = block_.warps.size();
    registers_.resize(warps * program.units * 128 + 128);
    predicates_.resize(warps * program.predicates + 1);
    local_.resize(warps * kWarpLanes * local_stride_);
    if (defined) {
      undefined_bits_.resize(registers_.size());
      undefined_.resize(warps * program.units + 1);
      undefined_predicates_.resize(predicates_.size());
      local_undefined_.resize(local_.size());
    }
  }

  void begin(uint64_t linear) {
    const Program& program = *grid_.program;
    const uint32_t* size = grid_.config.grid;
    block_.linear_index = linear;
    block_.index[0] = static_cast<uint32_t>(linear % size[0]);
    block_.index[1] = static_cast<uint32_t>(linear / size[0] % size[1]);
    block_.index[2] = static_cast<uint32_t>(linear / size[0] / size[1]);
    std::fill(std::begin(block_.barriers), std::end(block_.barriers), Barrier{});
    block_.async.reset();
    std::fill(shared_undefined_.begin(), shared_undefined_.end(), std::byte{0xff});
    std::fill(cells_.begin(), cells_.end(), RaceCell{});
    std::fill(undefined_bits_.begin(), undefined_bits_.end(), std::byte{0xff});
    std::fill(undefined_.begin(), undefined_.end(), kAllLanes);
    std::fill(undefined_predicates_.begin(), undefined_predicates_.end(), kAllLanes);
    std::fill(local_undefined_.begin(), local_undefined_.end(), std::byte{0xff});

    const uint32_t threads = grid_.config.block[0] * grid_.config.block[1] * grid_.config.block[2];
    const bool defined = !undefined_.empty();
    for (uint32_t i = 0; i < block_.warps.size(); ++i) {
      Warp w;
      const uint32_t lanes = std::min(kWarpLanes, threads - i * kWarpLanes);
      w.exists = lanes == kWarpLanes ? kAllLanes : (1u << lanes) - 1;
      w.active = w.exists;
      w.index = i;
      w.block = &block_;
      w.registers = registers_.data() + size_t{i} * program.units * 128;
      w.constants = program.constants.data();
      w.predicates = predicates_.data() + size_t{i} * program.predicates;
      w.local_stride = local_stride_;
      w.local = local_.data() + i * kWarpLanes * local_stride_;
      if (defined) {
        w.undefined = undefined_.data() + size_t{i} * program.units;
        w.undefined_bits = undefined_bits_.data() + size_t{i} * program.units * 128;
        w.undefined_predicates = undefined_predicates_.data() + size_t{i} * program.predicates;
        w.local_undefined = local_undefined_.data() + i * kWarpLanes * local_stride_;
      }
      block_.warps[i] = std::move(w);
    }
    block_.races = grid_.races ? std::make_unique<BlockRaces>(block_) : nullptr;
    done_ = 0;
    done_warps_.assign(block_.warps.size(), false);
    executed_.assign(block_.warps.size(), 0);
  }

  enum class Turn { ended, looping };
  // Runs every warp, in an order of `random`, until all ended or those that can run only loop.
  Turn run(std::minstd_rand& random, Executions* executions, std::atomic<uint64_t>& progress) {
    std::vector<uint32_t> order(block_.warps.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    for (;;) {
      std::shuffle(order.begin(), order.end(), random);
      const uint64_t before = block_.progress;
      bool looping = false;
      for (uint32_t i : order) {
        if (done_warps_[i]) continue;
        const WarpState state = run_warp(block_.warps[i], executions, &executed_[i]);
        looping |= state == WarpState::looping;
        if (state == WarpState::done) {
          done_warps_[i] = true;
          if (block_.counters != nullptr) {
            uint64_t& busiest = block_.counters->busiest_warp;
            busiest = std::max(busiest, executed_[i]);
            std::vector<uint64_t>& all = block_.counters->of_multiprocessors;
            all[block_.linear_index % all.size()] += executed_[i];
          }
          ++done_;
          ++block_.progress;
        }
      }
      progress.fetch_add(block_.progress - before, std::memory_order_relaxed);
      if (done_ == block_.warps.size() || grid_.stop.load(std::memory_order_relaxed))
        return Turn::ended;
      if (block_.progress != before) continue;
      if (looping) return Turn::looping;
      report_deadlock(block_);
    }
  }

  Block& block() { return block_; }

 private:
  Grid& grid_;
  Block block_;
  uint64_t local_stride_ = 0;
  size_t done_ = 0;
  std::vector<bool> done_warps_;
  std::vector<uint64_t> executed_;  // instructions of each warp, where they are counted
  std::vector<std::byte> shared_, shared_undefined_, registers_, undefined_bits_, local_,
      local_undefined_;
  std::vector<uint32_t> predicates_, undefined_, undefined_predicates_;
  std::vector<RaceCell> cells_;
};

// A warp that is not at a barrier, for the report of a launch that does not end.
void report_endless(Block& block) {
  for (Warp& w : block.warps) {
    if (w.live() == 0 || w.active == 0) continue;
    report(w, block.grid->program->code[w.pc], static_cast<unsigned>(std::countr_zero(w.active)),
           Fault::deadlock, 0,
           "no warp of the grid ended or passed a barrier for 20 s; this one loops here");
    break;
  }
  block.grid->stop = true;
}

void work(Shared& shared, unsigned worker) {
  Grid& grid = shared.grid;
  const bool counted = grid.options.counters;
  LaunchCounters counters;
  std::vector<Executions> executions(counted ? grid.program->code.size() : 0);
  counters.places.resize(executions.size());
  counters.of_multiprocessors.resize(current_profile().multiprocessors);
  std::minstd_rand random(static_cast<uint32_t>(grid.options.seed * 7919 + worker + 1));
  const size_t most =
      grid.config.cooperative ? static_cast<size_t>(shared.blocks) : kResidentBlocks;
  std::vector<std::unique_ptr<Resident>> residents, idle;
  uint64_t seen = 0;
  auto changed = std::chrono::steady_clock::now();
  bool more = true;
  while (!grid.stop.load(std::memory_order_relaxed)) {
    while (more && residents.size() < most) {
      const uint64_t next = shared.next_block.fetch_add(1, std::memory_order_relaxed);
      more = next < shared.blocks;
      if (!more) break;
      std::unique_ptr<Resident> resident;
      if (idle.empty()) {
        resident = std::make_unique<Resident>(grid, counted ? &counters : nullptr);
      } else {
        resident = std::move(idle.back());
        idle.pop_back();
      }
      resident->begin(next);
      residents.push_back(std::move(resident));
    }
    if (residents.empty()) break;
    const size_t chosen = random() % residents.size();
    const auto turn =
        residents[chosen]->run(random, counted ? executions.data() : nullptr, shared.progress);
    if (turn == Resident::Turn::ended) {
      shared.progress.fetch_add(1, std::memory_order_relaxed);
      idle.push_back(std::move(residents[chosen]));
      residents.erase(residents.begin() + static_cast<ptrdiff_t>(chosen));
      continue;
    }
    const uint64_t progress = shared.progress.load(std::memory_order_relaxed);
    const auto now = std::chrono::steady_clock::now();
    if (progress != seen) {
      seen = progress;
      changed = now;
    } else if (now - changed > kPatience) {
      report_endless(residents[chosen]->block());
    }
    std::this_thread::yield();
  }
  if (!counted) return;
  const std::lock_guard lock(shared.mutex);
  shared.counters.add(counters);
  shared.executions.resize(executions.size());
  for (size_t pc = 0; pc < executions.size(); ++pc) {
    shared.executions[pc].warps += executions[pc].warps;
    shared.executions[pc].lanes += executions[pc].lanes;
  }
}

// Places by program counter become places by source line, in the order of the lines.
void merge_places(const Program& program, const std::vector<Executions>& executions,
                  std::vector<PlaceCounters>& places) {
  std::map<std::pair<std::vector<std::string>, uint32_t>, PlaceCounters> merged;
  for (size_t pc = 0; pc < executions.size(); ++pc) {
    if (program.code[pc].unit == Unit::count_ || executions[pc].warps == 0) continue;
    places[pc].instructions = executions[pc].warps;
    auto source = places_of(program, static_cast<uint32_t>(pc));
    merged[{std::move(source), places[pc].lane_bytes}].add(places[pc]);
  }
  places.clear();
  for (auto& [key, place] : merged) {
    place.source = key.first;
    places.push_back(std::move(place));
  }
}

// Copies the arguments to where the kernel's .param variables lie.
std::vector<std::byte> lay_out_parameters(const Program& program, void** arguments) {
  std::vector<std::byte> out(align_up(program.facts.parameter_bytes, 16) + 16);
  uint64_t at = 0;
  size_t argument = 0;
  for (uint32_t v : program.kernel->parameters) {
    const ptx::Variable& variable = program.kernel->variables[v];
    at = align_up(at, variable.align);
    if (variable.bytes != 0) std::memcpy(out.data() + at, arguments[argument], variable.bytes);
    ++argument;
    at += variable.bytes;
  }
  return out;
}

}  // namespace

void Block::thread_of(const Warp& warp, unsigned lane, uint32_t out[3]) const {
  const uint32_t linear = warp.index * kWarpLanes + lane;
  const uint32_t* size = grid->config.block;
  out[0] = linear % size[0];
  out[1] = linear / size[0] % size[1];
  out[2] = linear / size[0] / size[1];
}

int run_kernel(const Program& program, const LaunchConfig& config) {
  Grid grid;
  grid.program = &program;
  grid.config = config;
  grid.options = options();
  grid.parameters = lay_out_parameters(program, config.arguments);
  memory_map().begin_launch();
  if (grid.checks(kCheckRaces)) grid.races = std::make_unique<GridRaces>(grid);

  Allocation* workspace = nullptr;
  if (config.cooperative) {
    workspace =
        memory_map().allocate(kSyncWorkspaceBytes, MemoryKind::variable, "the grid's barrier");
    if (workspace == nullptr) return kOutOfMemory;
    grid.sync_workspace = workspace->begin;
    std::memset(reinterpret_cast<void*>(workspace->begin), 0, kSyncWorkspaceBytes);
    memory_map().define(reinterpret_cast<const void*>(workspace->begin), kSyncWorkspaceBytes);
  }

  Shared shared(grid);
  shared.blocks = uint64_t{config.grid[0]} * config.grid[1] * config.grid[2];
  const unsigned cores = grid.options.threads != 0
                             ? grid.options.threads
                             : std::max(1u, std::thread::hardware_concurrency());
  const uint64_t useful =
      config.cooperative ? 1 : (shared.blocks + kResidentBlocks - 1) / kResidentBlocks;
  run_on_workers(static_cast<unsigned>(std::min<uint64_t>(cores, useful)),
                 [&](unsigned worker) { work(shared, worker); });

  if (workspace != nullptr) memory_map().release(reinterpret_cast<const void*>(workspace->begin));
  if (grid.options.counters) {
    LaunchCounters& counters = shared.counters;
    counters.kernel = program.name;
    std::copy_n(config.grid, 3, counters.grid);
    std::copy_n(config.block, 3, counters.block);
    counters.shared_bytes = program.facts.static_shared + config.dynamic_shared;
    for (size_t pc = 0; pc < shared.executions.size(); ++pc) {
      const auto unit = static_cast<size_t>(program.code[pc].unit);
      if (unit == static_cast<size_t>(Unit::count_)) continue;
      counters.instructions[unit] += shared.executions[pc].warps;
      counters.lane_instructions[unit] += shared.executions[pc].lanes;
    }
    merge_places(program, shared.executions, counters.places);
    keep_counters(std::move(counters));
  }
  return grid.error;
}

}  // namespace longclock::emulator
