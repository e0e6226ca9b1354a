// SPDX-License-Identifier: Apache-2.0
// A thread block and the grid that it belongs to, as handlers see them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../emulator.h"
#include "launch.h"
#include "warp.h"

namespace longclock::emulator {

struct LaunchCounters;
class BlockRaces;  // checks/races.h
class GridRaces;
class AsyncCopies;  // machine/async_copies.h
struct RaceCell;

// What is the same for all blocks of a launch.
struct Grid {
  const Program* program = nullptr;
  LaunchConfig config;
  Options options;                    // as they were at the launch
  std::vector<std::byte> parameters;  // param space of the kernel
  uint64_t sync_workspace = 0;        // of a cooperative launch: where its barrier counts
  std::unique_ptr<GridRaces> races;   // where they are checked
  std::atomic<int> error = 0;         // cudaError_t of the first fault
  std::atomic<bool> stop = false;     // after a trap, or too many faults

  bool checks(Check check) const { return (options.checks & check) != 0; }
};

struct Barrier {
  uint32_t expected = 0;               // threads; 0: nobody waits
  uint32_t arrived = 0;                // threads, whole warps counted as 32
  uint32_t pc = 0;                     // of the first to come
  uint32_t warps = 0;                  // that came
  uint32_t true_votes = 0, votes = 0;  // bar.red
  uint32_t generation = 0;
};

struct Block {
  Grid* grid = nullptr;
  uint32_t index[3] = {0, 0, 0};
  uint64_t linear_index = 0;
  std::byte* shared = nullptr;            // host memory; its address is the generic address
  uint32_t shared_bytes = 0;              // static and dynamic
  std::byte* shared_undefined = nullptr;  // [shared_bytes], bits never written; where it is checked
  RaceCell* shared_cells = nullptr;       // [ceil(shared_bytes / 4)], where races are checked
  std::unique_ptr<BlockRaces> races;
  std::unique_ptr<AsyncCopies> async;  // pending cp.async, made at the first
  LaunchCounters* counters = nullptr;  // the worker's; nullptr: not counted
  std::vector<Warp> warps;
  Barrier barriers[16];
  uint64_t progress = 0;  // barriers that completed and warps that ended

  // The thread of a lane.
  void thread_of(const Warp& warp, unsigned lane, uint32_t out[3]) const;
};

}  // namespace longclock::emulator
