// SPDX-License-Identifier: Apache-2.0
// What a profiler would show of a launch. Exact and independent of the machine: nothing here is a
// time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../memory/access.h"

namespace longclock::emulator {

struct MemoryCounters {
  uint64_t requests = 0;         // warp-wide instructions
  uint64_t bytes = 0;            // of all lanes
  uint64_t sectors = 0;          // of 32 bytes, distinct in each request
  uint64_t minimum_sectors = 0;  // had each request's distinct bytes been contiguous and aligned
  uint64_t first_bytes = 0;      // touched for the first time in this launch (4-byte granules)
  uint64_t again_bytes = 0;      // touched before

  MemoryCounters& operator+=(const MemoryCounters& other);
};

struct SharedCounters {
  uint64_t requests = 0;
  uint64_t wavefronts = 0;          // passes over the 32 banks of 4 bytes
  uint64_t minimum_wavefronts = 0;  // had no two words of a request shared a bank

  SharedCounters& operator+=(const SharedCounters& other);
};

// Of the instructions of one place in the source that access memory in pieces of one width.
struct PlaceCounters {
  std::vector<std::string> source;  // "file:line", then where that was inlined, outwards
  uint32_t lane_bytes = 0;          // of an access; 0: no access to global or shared memory
  uint64_t instructions = 0;        // of warps
  MemoryCounters global;
  SharedCounters shared;

  void add(const PlaceCounters& other);
};

struct LaunchCounters {
  std::string kernel;  // demangled
  uint32_t grid[3] = {0, 0, 0};
  uint32_t block[3] = {0, 0, 0};
  uint64_t shared_bytes = 0;                                      // a block, static and dynamic
  uint64_t instructions[static_cast<size_t>(Unit::count_)] = {};  // of warps
  uint64_t lane_instructions[static_cast<size_t>(Unit::count_)] = {};  // of threads
  MemoryCounters global_loads, global_stores, global_atomics;
  SharedCounters shared_loads, shared_stores, shared_atomics;
  uint64_t local_load_bytes = 0, local_store_bytes = 0;
  uint64_t barriers = 0;  // of warps
  // Warps that wait for cp.async groups, and the bytes of all their groups when they begin to.
  uint64_t copy_waits = 0, copy_wait_bytes = 0;
  uint64_t atomics = 0;  // of lanes
  uint64_t divergent_branches = 0;
  uint64_t busiest_warp = 0;  // instructions of the warp that has the most
  // Instructions of each multiprocessor's blocks, where blocks go round.
  std::vector<uint64_t> of_multiprocessors;
  std::vector<PlaceCounters> places;  // by program counter while the kernel runs, then by source

  void add(const LaunchCounters& other);
  std::string json() const;
};

MemoryCounters count_global(const Access& access, uint32_t lanes);  // one request
SharedCounters count_shared(const Access& access, uint32_t lanes);
void keep_counters(LaunchCounters counters);  // for take_counters_json()

}  // namespace longclock::emulator
