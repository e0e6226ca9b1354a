// SPDX-License-Identifier: Apache-2.0
// What is above a score and the first of its equals, moved in order of index by a warp.
#pragma once

#include "longclock/common/warp.cuh"
#include "longclock/selection/selection.h"

namespace longclock {

// How many scores are above a threshold and how many equal to it.
struct ReachingCounts {
  int above, equal;
};

// Of kCount scores a lane, that follow each other from lane to lane: writes the entries of those
// that are above the threshold, and of its equals the first `ties`, to `out`, and adds how many are
// above and equal to `before`, where those of what lies before them are.
template <int kCount, class EntryOf>
__device__ __forceinline__ void take_in_order(const uint32_t (&ordered)[kCount], uint32_t threshold,
                                              int ties, ReachingCounts* before,
                                              const EntryOf& entry_of, TopKEntry* out) {
  int mine = 0;  // above in the lower half, equal in the upper
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    mine += (ordered[i] > threshold) + ((ordered[i] == threshold) << 16);
  }
  int sum = mine;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int lower = __shfl_up_sync(kAllLanes, sum, offset);
    if (lane_index() >= offset) sum += lower;
  }
  int above = before->above + ((sum - mine) & 0xffff);
  int equal = before->equal + ((sum - mine) >> 16);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const bool is_above = ordered[i] > threshold, is_equal = ordered[i] == threshold;
    if (is_above || (is_equal && equal < ties)) out[above + min(equal, ties)] = entry_of(i);
    above += is_above;
    equal += is_equal;
  }
  const int total = __shfl_sync(kAllLanes, sum, kWarp - 1);
  before->above += total & 0xffff;
  before->equal += total >> 16;
}

}  // namespace longclock
