// SPDX-License-Identifier: Apache-2.0
// The best k <= 128 of up to 2,048 scores by one warp, without a barrier of its block. Scores are
// in registers, as 32-bit integers in the order of a selection. A lower bound of the k-th best
// leaves little more than k of them, which go to shared memory in order of place; of these the k-th
// best is found bit by bit, by counting, and what is above it is kept and, of its equals, the
// first. The bound is the caller's, or the k-th largest of the maxima of 128 groups. Where more
// reach it than there is room for (ties, or large scores all in few groups), the k-th best is found
// in the registers. So the result is exact and unique for every input, in a time that no input
// exceeds.
#pragma once

#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/selection/selection.h"
#include "longclock/selection/sort_entries.cuh"
#include "longclock/selection/take_in_order.cuh"

namespace longclock {

constexpr int kWarpSelectorWarps = 4;  // of a block, each with a selection of its own
constexpr int kWarpSelectorThreads = kWarpSelectorWarps * kWarp;
constexpr int kMaxWarpK = 128;  // groups, and what a warp sorts in registers
constexpr int kMaxWarpScores = 2048;

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

// How places lie in a piece, which is four scores for each lane.
enum class Places {
  kFours,  // a lane's four follow each other: for scores that are loaded four at a time
  kLanes,  // 32 neighbours are one of each lane, four times: for scores that are computed
};

// For up to 128 * kPieces scores. All lanes call everything.
template <int kPieces, Places kPlaces = Places::kFours>
class WarpSelector {
 public:
  static constexpr int kRoom = 512;
  static_assert(kPieces * 4 * kWarp <= kMaxWarpScores);

  // Of each warp.
  struct Shared {
    TopKEntry taken[kRoom + 4 * kWarp];  // a piece more, which is written before it is counted
  };

  // four(i): scores place_of(i, 0) to place_of(i, 3) of n; 0 where one is not valid or not there.
  template <class Four>
  __device__ WarpSelector(Shared* shared, int k, int n, const Four& four)
      : taken_(shared->taken), k_(k), pieces_((n + 4 * kWarp - 1) / (4 * kWarp)) {
    for_each_piece([&](int j) {
      const uint4 scores = four(j * kWarp + lane_index());
      scores_[4 * j] = scores.x;
      scores_[4 * j + 1] = scores.y;
      scores_[4 * j + 2] = scores.z;
      scores_[4 * j + 3] = scores.w;
    });
  }

  // The place of the i-th score of a lane's four, of which the warp's piece j holds numbers 32 j to
  // 32 j + 31.
  __device__ static int place_of(int four, int i) {
    if constexpr (kPlaces == Places::kFours) return 4 * four + i;
    return (four / kWarp * 4 + i) * kWarp + four % kWarp;
  }

  // A lower bound of the k-th best, 1 at least: the k-th largest of the maxima of 128 groups that
  // have no score in common, down to the bits of its upper half.
  __device__ uint32_t bound() const {
    uint32_t maxima[4] = {};
    for_each_piece([&](int j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) maxima[i] = max(maxima[i], scores_[4 * j + i]);
    });
    return max(kth_largest(maxima, 4, k_, 0, 0x10000), 1u);
  }

  // The largest of this lane's scores.
  __device__ uint32_t largest() const {
    uint32_t largest = 0;
    for_each_piece([&](int j) { largest = max(largest, largest_of_piece(j)); });
    return largest;
  }

  // The same where places 8 b to 8 b + 7 are a block's, and all of k blocks are there: the least of
  // their best.
  __device__ uint32_t bound_of_blocks() const {
    static_assert(kPlaces == Places::kFours);
    uint32_t least = 0xffffffffu;
    for_each_piece([&](int j) {
      const uint32_t mine = largest_of_piece(j);
      const uint32_t best = max(mine, __shfl_xor_sync(kAllLanes, mine, 1));
      if ((j * kWarp + lane_index()) / 2 < k_) least = min(least, best);
    });
    return max(warp_min(least), 1u);
  }

  // Takes what reaches a lower bound of the k-th best; where there is no room for it, the k best.
  __device__ void take(uint32_t bound) {
    bound_ = bound;
    count_ = take_reaching();
    __syncwarp();
    if (count_ <= kRoom) return;
    const uint32_t kth = kth_largest(scores_, 4 * pieces_, k_, bound, 1);
    const int ties = k_ - count_above(scores_, 4 * pieces_, kth);
    count_ = k_;
    if (kth == bound && ties == k_) return;  // the first of equals, which were taken in order
    ReachingCounts before{0, 0};
    for_each_piece([&](int j) {
      if constexpr (kPlaces == Places::kFours) {
        const uint32_t ordered[4] = {scores_[4 * j], scores_[4 * j + 1], scores_[4 * j + 2],
                                     scores_[4 * j + 3]};
        take_in_order(ordered, kth, ties, &before, [&](int i) { return entry(j, i); }, taken_);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t ordered[1] = {scores_[4 * j + i]};
          take_in_order(ordered, kth, ties, &before, [&](int) { return entry(j, i); }, taken_);
        }
      }
    });
    __syncwarp();
  }

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
    const uint32_t kth = kth_largest(ordered, each, k_, bound_, 1);
    const int ties = k_ - count_above(ordered, each, kth);
    ReachingCounts before{0, 0};
#pragma unroll 1
    for (int i = 0; i < each; ++i) {  // to places that were read already
      const int at = i * kWarp + lane_index();
      const TopKEntry entry = at < count_ ? taken_[at] : 0;
      __syncwarp();
      const uint32_t one[1] = {ordered_score_of(entry)};
      take_in_order(one, kth, ties, &before, [&](int) { return entry; }, taken_);
    }
    count_ = k_;
    __syncwarp();
  }

  // How many were taken, and of each, in order of place, where it lies.
  __device__ int count() const { return count_; }
  __device__ int place(int i) const { return static_cast<int>(entry_index(taken_[i])); }

  // Calls f(i, place, ordered score) for what was taken, in order of place.
  template <class F>
  __device__ void for_each(const F& f) const {
    for (int i = lane_index(); i < count_; i += kWarp) {
      f(i, place(i), ordered_score_of(taken_[i]));
    }
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

 private:
  template <class F>
  __device__ void for_each_piece(const F& f) const {
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      if (j >= pieces_) break;
      f(j);
    }
  }

  __device__ TopKEntry entry(int piece, int i) const {
    return topk_entry_of(scores_[4 * piece + i], place_of(piece * kWarp + lane_index(), i));
  }
  __device__ uint32_t largest_of_piece(int j) const {
    return max(max(scores_[4 * j], scores_[4 * j + 1]),
               max(scores_[4 * j + 2], scores_[4 * j + 3]));
  }

  // Writes what reaches the bound in order of place, while there is room. Returns how many do.
  __device__ int take_reaching() {
    const unsigned before = (1u << lane_index()) - 1;
    int count = 0;
    for_each_piece([&](int j) {
      if (count > kRoom) return;
      uint2* to = reinterpret_cast<uint2*>(taken_) + count;
      unsigned lanes[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        lanes[i] = __ballot_sync(kAllLanes, scores_[4 * j + i] >= bound_);
        if constexpr (kPlaces == Places::kFours) to += __popc(lanes[i] & before);
        count += __popc(lanes[i]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const unsigned place = static_cast<unsigned>(place_of(j * kWarp + lane_index(), i));
        const uint2 halves = make_uint2(~place, scores_[4 * j + i]);  // of an entry
        if constexpr (kPlaces == Places::kFours) {
          if (scores_[4 * j + i] >= bound_) *to++ = halves;
        } else {
          if (scores_[4 * j + i] >= bound_) to[__popc(lanes[i] & before)] = halves;
          to += __popc(lanes[i]);
        }
      }
    });
    return count;
  }

  TopKEntry* taken_;
  int k_, pieces_;
  int count_ = 0;
  uint32_t bound_ = 1;
  uint32_t scores_[4 * kPieces];
};

}  // namespace longclock
