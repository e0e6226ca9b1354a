// SPDX-License-Identifier: Apache-2.0
// cp.async as its threads may rely on it: the source is read at once, but nothing arrives before
// the thread waits for the copy's group. Until then the destination holds undefined bits and
// belongs to nobody, so that every program that reads too early is found, however the hardware's
// timing would have favoured it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "warp.h"

namespace longclock::emulator {

class AsyncCopies {
 public:
  struct Copy {
    const Instruction* by = nullptr;
    uint32_t offset = 0;  // in shared memory
    uint32_t bytes = 0;   // 4, 8 or 16
    uint32_t read = 0;    // of the source: the rest are zeros
    std::byte data[16];
    std::byte undefined[16];
  };

  explicit AsyncCopies(size_t warps) : lanes_(warps * kWarpLanes) {}

  // Destination marked as pending; it was checked as a write.
  void issue(Warp& warp, unsigned lane, const Copy& copy);
  void commit(Warp& warp, uint32_t lanes);
  // All groups of each lane arrive but the latest `left`.
  void wait(Warp& warp, uint32_t lanes, uint64_t left);
  // Groups or not.
  void wait_all(Warp& warp, uint32_t lanes);
  // Threads end: their copies arrive, and nobody is to blame.
  void finish(Warp& warp, uint32_t lanes);

 private:
  struct Lane {
    std::vector<Copy> copies;
    std::vector<uint32_t> group_ends;  // counts of copies
  };
  Lane& lane(const Warp& warp, unsigned l) { return lanes_[warp.index * kWarpLanes + l]; }
  void arrive(Warp& warp, uint32_t lanes, const uint32_t* counts, bool silent);

  std::vector<Lane> lanes_;
};

// The block's, made at the first use.
AsyncCopies& async_copies(Block& block);

}  // namespace longclock::emulator
