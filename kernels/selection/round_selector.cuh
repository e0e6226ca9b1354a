// SPDX-License-Identifier: Apache-2.0
// The best k <= 128 of any number of scores that come in rounds, in order of index, by one warp
// without a barrier of its block. What beats the k-th best so far joins those that were taken; when
// they leave no room for a round they are cut to the k best, whose last is what the next must beat.
// Equal ones come later and lose. So the result is exact and unique for every input; an order of
// scores that makes every round pass costs a cut each, no more.
#pragma once

#include "longclock/selection/warp_entries.cuh"

namespace longclock {

class RoundSelector : public WarpEntries {
 public:
  static constexpr int kRound = 256;
  static_assert(kMaxWarpK + kRound <= kRoom);

  // What stays in shared memory from round to round.
  struct State {
    TopKEntry taken[kRoom];
    int count;
    uint32_t beaten;  // the k-th best, once there are k
  };

  // By the warp alone, once.
  __device__ static void begin(State* state) {
    if (lane_index() == 0) state->count = static_cast<int>(state->beaten = 0);
    __syncwarp();
  }

  __device__ RoundSelector(State* state, int k) : WarpEntries(state->taken, k), state_(state) {
    count_ = state->count;
    beaten_ = state->beaten;
  }

  // kRound scores, of indices from `first` on, as a selection orders them; 0 where one is not valid
  // or not there. Those of a call lie behind those of the calls before.
  __device__ void take(const uint32_t* scores, unsigned first) {
#pragma unroll
    for (int at = 0; at < kRound; at += 4 * kWarp) {
      const uint4 four = reinterpret_cast<const uint4*>(scores + at)[lane_index()];
      const uint32_t best = max(max(four.x, four.y), max(four.z, four.w));
      if (__any_sync(kAllLanes, best > beaten_)) take_above(scores + at, first + at);
    }
    __syncwarp();
    if (count_ > kRoom - kRound) {
      keep_best();
      beaten_ = bound_;
    }
    if (lane_index() == 0) {
      state_->count = count_;
      state_->beaten = beaten_;
    }
    __syncwarp();
  }

 private:
  // Of 128 scores takes those that beat the k-th best, in order of index.
  __device__ void take_above(const uint32_t* scores, unsigned first) {
    const unsigned before = (1u << lane_index()) - 1;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = i * kWarp + lane_index();
      const uint32_t ordered = scores[at];
      const bool beats = ordered > beaten_;
      const unsigned lanes = __ballot_sync(kAllLanes, beats);
      if (beats) taken_[count_ + __popc(lanes & before)] = topk_entry_of(ordered, first + at);
      count_ += __popc(lanes);
    }
  }

  State* state_;
  uint32_t beaten_;
};

}  // namespace longclock
