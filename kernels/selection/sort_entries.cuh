// SPDX-License-Identifier: Apache-2.0
// Entries put in order by a thread block of kSelectorThreads: a bitonic network, whose time does
// not depend on the data. What lies within 32 entries is exchanged between the registers of a warp.
#pragma once

#include "longclock/common/warp.cuh"
#include "longclock/selection/selection.h"
#include "longclock/selection/selector_plan.cuh"

namespace longclock {

// Entry first + lane after the strides below a warp of the network's step `size`.
__device__ __forceinline__ TopKEntry merged_in_warp(TopKEntry entry, int first, int size) {
  const int at = first + lane_index();
#pragma unroll
  for (int stride = kWarp / 2; stride > 0; stride /= 2) {
    if (stride >= size) continue;
    const TopKEntry other = __shfl_xor_sync(kAllLanes, entry, stride);
    const bool wants_larger = ((at & stride) == 0) == ((at & size) == 0);
    if ((entry < other) == wants_larger) entry = other;
  }
  return entry;
}

// Puts the entries of a warp in order, best first: entry i * 32 + lane is the lane's i-th. kEach: a
// power of two.
template <int kEach>
__device__ __forceinline__ void sort_in_warp(TopKEntry (&entries)[kEach]) {
#pragma unroll
  for (int size = 2; size <= kEach * kWarp; size *= 2) {
#pragma unroll
    for (int stride = size / 2; stride >= kWarp; stride /= 2) {
#pragma unroll
      for (int low = 0; low < kEach; ++low) {
        const int high = low ^ (stride / kWarp);
        if (high < low) continue;
        const TopKEntry a = entries[low], b = entries[high];
        const bool exchange = (a < b) == ((low * kWarp & size) == 0);
        entries[low] = exchange ? b : a;
        entries[high] = exchange ? a : b;
      }
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) entries[i] = merged_in_warp(entries[i], i * kWarp, size);
  }
}

// Puts `count` entries in order, best first. There is room for a power of two, 32 at least, which
// is padded with zeros. All threads, with a barrier before others may read.
__device__ __forceinline__ void sort_entries(TopKEntry* entries, int count) {
  int padded = kWarp;
  while (padded < count) padded *= 2;
  for (int i = count + threadIdx.x; i < padded; i += kSelectorThreads) entries[i] = 0;
  __syncthreads();
  for (int first = warp_index() * kWarp; first < padded; first += kSelectorThreads) {
    TopKEntry& entry = entries[first + lane_index()];
#pragma unroll
    for (int size = 2; size <= kWarp; size *= 2) entry = merged_in_warp(entry, first, size);
  }
  for (int size = 2 * kWarp; size <= padded; size *= 2) {
    for (int stride = size / 2; stride >= kWarp; stride /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < padded / 2; i += kSelectorThreads) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const TopKEntry a = entries[low], b = entries[high];
        if ((a < b) == ((low & size) == 0)) {
          entries[low] = b;
          entries[high] = a;
        }
      }
    }
    __syncthreads();
    for (int first = warp_index() * kWarp; first < padded; first += kSelectorThreads) {
      TopKEntry& entry = entries[first + lane_index()];
      entry = merged_in_warp(entry, first, size);
    }
  }
  __syncthreads();
}

}  // namespace longclock
