// SPDX-License-Identifier: Apache-2.0
// The shared memory of a selection by a thread block, and how scores are cut into tiles for it.
#pragma once

#include "longclock/common/device.h"
#include "longclock/common/warp.cuh"

namespace longclock {

constexpr int kSelectorThreads = 256;
constexpr int kMaxCompared = 128;  // k up to which the largest of 256 threads bound it well
constexpr int kTakenRoom = 512;    // for what is not below their bound

// Shared memory of a selection.
struct SelectorPlan {
  int k;
  int capacity;  // scores of a tile
  int room;      // entries carried: a power of two, k and 32 at least, for the sort
  int taken;     // entries taken from a tile and the carried
  int bytes() const { return capacity * 4 + (room + taken) * 8; }
};

// For at most `longest` scores a block, beside `other` bytes of the kernel's own. Chunks are equal
// and no longer than lets three blocks share a multiprocessor.
inline SelectorPlan plan_selector(int64_t longest, int64_t k, int other,
                                  const DeviceLimits& device) {
  constexpr int kMin = 4096;  // below this, passes over a tile cost more than occupancy gains
  SelectorPlan plan{static_cast<int>(k), 0, kWarp, kTakenRoom};
  while (plan.room < k) plan.room *= 2;
  if (k > kMaxCompared) plan.taken = plan.room;
  const int fixed = other + (plan.room + plan.taken) * 8;
  const int third = device.shared_per_multiprocessor / 3 - device.shared_reserved;
  int most = (third - fixed) / 4;
  if (most < kMin) {
    const int optin = (device.shared_optin - fixed) / 4;
    most = optin < kMin ? optin : kMin;
  }
  most = most / kWarp * kWarp;
  if (longest < 1) longest = 1;
  const int64_t tiles = (longest + most - 1) / most;
  const int64_t capacity = (longest + tiles - 1) / tiles;
  plan.capacity = static_cast<int>((capacity + kWarp - 1) / kWarp * kWarp);
  return plan;
}

}  // namespace longclock
