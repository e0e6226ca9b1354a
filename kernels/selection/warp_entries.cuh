// SPDX-License-Identifier: Apache-2.0
// Entries that a warp took of what it selects from, in shared memory in order of place, and the
// best k <= 128 of them: the k-th best is found bit by bit, by counting; what is above it is kept
// and, of its equals, the first.
#pragma once

#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/selection/selection.h"
#include "longclock/selection/sort_entries.cuh"
#include "longclock/selection/take_in_order.cuh"

namespace longclock {

constexpr int kMaxWarpK = 128;  // what a warp sorts in registers

// How many of the first `used` numbers of all lanes are above one.
template <int kCount>
__device__ __forceinline__ int count_above(const uint32_t (&numbers)[kCount], int used,
                                           uint32_t than) {
  int count = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i >= used) break;
    count += numbers[i] > than;
  }
  return warp_count(count);
}

// The k-th largest of the first `used` numbers of all lanes, 0 where no k are above 0; its bits
// below `last` are 0 and not looked at. bound: what it reaches.
template <int kCount>
__device__ __forceinline__ uint32_t kth_largest(const uint32_t (&numbers)[kCount], int used, int k,
                                                uint32_t bound, uint32_t last) {
  uint32_t most = bound, least = 0xffffffffu;  // of what reaches the bound
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i >= used) break;
    most = max(most, numbers[i]);
    if (numbers[i] >= bound) least = min(least, numbers[i]);
  }
  most = warp_max(most);
  least = warp_min(least);
  // Ties, often: those of the least are enough.
  if (most <= least || count_above(numbers, used, least) < k) return min(least, most);
  uint32_t bit = 0x80000000u >> __clz(static_cast<int>(most ^ least));
  uint32_t found = most & ~(2u * bit - 1u);
#pragma unroll 1
  for (; bit >= last; bit /= 2) {
    const int count = count_above(numbers, used, (found | bit) - 1);
    if (count >= k) found |= bit;
    if (count == k) break;
  }
  return found;
}

// All lanes call everything.
class WarpEntries {
 public:
  static constexpr int kRoom = 512;

  // Of what was taken, keeps the k best.
  __device__ void keep_best() {
    if (count_ <= k_) return;
    constexpr int kEach = kRoom / kWarp;
    const int each = (count_ + kWarp - 1) / kWarp;
    uint32_t ordered[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (i >= each) break;
      const int at = i * kWarp + lane_index();
      ordered[i] = at < count_ ? ordered_score_of(taken_[at]) : 0;
    }
    bound_ = kth_largest(ordered, each, k_, bound_, 1);
    keep_reaching(k_ - count_above(ordered, each, bound_));
  }

  // How many were taken, and of each, in order of place, where it lies.
  __device__ int count() const { return count_; }
  __device__ int place(int i) const { return static_cast<int>(entry_index(taken_[i])); }

  // Calls f(i, entry) for the k best, equals in order of place, padded with zeros to k.
  template <class F>
  __device__ void for_each_entry(const F& f) {
    keep_best();
    for (int i = lane_index(); i < k_; i += kWarp) f(i, i < count_ ? taken_[i] : 0);
  }

  // The k best, sorted, to scores [k] and indices [k], padded with (-inf, -1). index_of(place): of
  // places in order, in ascending order.
  template <class T, class IndexOf>
  __device__ void write_sorted(T* scores, int64_t* indices, const IndexOf& index_of) {
    if (count_ > kMaxWarpK) keep_best();
    constexpr int kEach = kMaxWarpK / kWarp;
    TopKEntry entries[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = i * kWarp + lane_index();
      entries[i] = at < count_ ? taken_[at] : 0;
    }
    sort_in_warp(entries);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = i * kWarp + lane_index();
      if (at >= k_) break;
      const TopKEntry entry = entries[i];
      scores[at] = narrow<T>(entry == 0 ? -INFINITY : entry_score(entry));
      const int place = static_cast<int>(entry_index(entry));
      indices[at] = entry == 0 ? -1 : static_cast<int64_t>(index_of(place));
    }
  }

 protected:
  __device__ WarpEntries(TopKEntry* taken, int k) : taken_(taken), k_(k) {}

  // Keeps k of what was taken: what is above the bound and, of its equals, the first `ties`.
  __device__ void keep_reaching(int ties) {
    ReachingCounts before{0, 0};
#pragma unroll 1
    for (int first = 0; first < count_; first += kWarp) {
      const int at = first + lane_index();
      const TopKEntry entry = at < count_ ? taken_[at] : 0;
      __syncwarp();
      const uint32_t one[1] = {ordered_score_of(entry)};
      // To places that have been read.
      take_in_order(one, bound_, ties, &before, [&](int) { return entry; }, taken_);
    }
    count_ = k_;
    __syncwarp();
  }

  TopKEntry* taken_;
  int k_;
  int count_ = 0;
  uint32_t bound_ = 1;  // what was taken reaches it, and the k best do
};

}  // namespace longclock
