// SPDX-License-Identifier: Apache-2.0
// The best k <= 128 of up to 2,048 scores by one warp, without a barrier of its block. Scores are
// in registers, as 32-bit integers in the order of a selection. A lower bound of the k-th best
// leaves little more than k of them, which go to shared memory, where warp_entries.cuh keeps the k
// best. The bound is the caller's, or the k-th largest of the maxima of 128 groups. Where more
// reach it than there is room for (ties, or large scores all in few groups), the k-th best is found
// in the registers. So the result is exact and unique for every input, in a time that no input
// exceeds.
#pragma once

#include "longclock/selection/warp_entries.cuh"

namespace longclock {

constexpr int kWarpSelectorWarps = 4;  // of a block, each with a selection of its own
constexpr int kWarpSelectorThreads = kWarpSelectorWarps * kWarp;
constexpr int kMaxWarpScores = 2048;

// How places lie in a piece, which is four scores for each lane.
enum class Places {
  kFours,  // a lane's four follow each other: for scores that are loaded four at a time
  kLanes,  // 32 neighbours are one of each lane, four times: for scores that are computed
};

// For up to 128 * kPieces scores. All lanes call everything.
template <int kPieces, Places kPlaces = Places::kFours>
class WarpSelector : public WarpEntries {
 public:
  static_assert(kPieces * 4 * kWarp <= kMaxWarpScores);

  // Of each warp.
  struct Shared {
    TopKEntry taken[kRoom + 4 * kWarp];  // a piece more, which is written before it is counted
  };

  // four(i): scores place_of(i, 0) to place_of(i, 3) of n; 0 where one is not valid or not there.
  template <class Four>
  __device__ WarpSelector(Shared* shared, int k, int n, const Four& four)
      : WarpEntries(shared->taken, k), pieces_((n + 4 * kWarp - 1) / (4 * kWarp)) {
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

  int pieces_;
  uint32_t scores_[4 * kPieces];
};

}  // namespace longclock
