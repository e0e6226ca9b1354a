// SPDX-License-Identifier: Apache-2.0
// The best k of any number of scores that come in rounds, in order of index, by one warp without a
// barrier of its block. What beats the k-th best so far joins a list; where it leaves no room for a
// round it is cut to the k best, whose last is what the next must beat. Equal ones come later and
// lose. So the result is exact and unique for every input; an order of scores that makes every
// round pass costs a cut whenever the room is full, no more.
// The k-th best of a list that registers hold is found there. Of a longer one, for larger k, it is
// found digit by digit: a warp counts how often each comes at the first place where scores differ,
// then at the next among those that share the digits before.
#pragma once

#include "longclock/selection/warp_entries.cuh"

namespace longclock {

class RoundSelector : public WarpEntries {
 public:
  static constexpr int kRound = 256;
  static_assert(kMaxWarpK + kRound <= kRoom);

  // What stays in shared memory from round to round, and behind it the list.
  struct alignas(16) State {
    int count;
    uint32_t beaten;  // the k-th best, once there are k
  };
  // Of each warp: how often a digit comes, the largest first.
  struct Digits {
    uint32_t counts[256];
  };

  // Entries of a list for k, an even number: the fewest, and as many as let k more be taken between
  // two cuts.
  static constexpr int least_room(int k) {
    return k <= kMaxWarpK ? kRoom : (k + kRound + 1) / 2 * 2;
  }
  static constexpr int wanted_room(int k) { return k <= kMaxWarpK ? kRoom : 2 * k + kRound; }
  static constexpr int bytes(int room) {
    return static_cast<int>(sizeof(State)) + room * static_cast<int>(sizeof(TopKEntry));
  }

  // By the warp alone, once.
  __device__ static void begin(State* state) {
    if (lane_index() == 0) state->count = static_cast<int>(state->beaten = 0);
    __syncwarp();
  }

  // state: bytes(room); digits: of the warp.
  __device__ RoundSelector(State* state, Digits* digits, int k, int room)
      : WarpEntries(reinterpret_cast<TopKEntry*>(state + 1), k),
        state_(state),
        digits_(digits),
        room_(room) {
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
    if (count_ > room_ - kRound) {
      keep_best();
      beaten_ = bound_;
    }
    remember();
  }

  // Of what was taken, keeps the k best.
  __device__ void keep_best() {
    if (count_ <= k_) return;
    if (count_ <= kRoom) return WarpEntries::keep_best();
    keep_reaching(find_bound());
  }

  // Calls f(i, entry) for the k best, equals in order of index, padded with zeros to k.
  template <class F>
  __device__ void for_each_entry(const F& f) {
    keep_best();
    WarpEntries::for_each_entry(f);
  }

  // Leaves the k best in the list, and how many they are in the state, for the block.
  __device__ void leave_best() {
    keep_best();
    __syncwarp();
    remember();
  }

 private:
  // After all lanes have read what was there.
  __device__ void remember() {
    if (lane_index() == 0) {
      state_->count = count_;
      state_->beaten = beaten_;
    }
    __syncwarp();
  }

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

  // Calls f(score) for those of this lane.
  template <class F>
  __device__ void for_each_score(const F& f) const {
#pragma unroll 4
    for (int at = lane_index(); at < count_; at += kWarp) f(ordered_score_of(taken_[at]));
  }

  // Makes the k-th best of more than k the bound, or what k exactly reach. Returns how many of the
  // bound's equals are among the k best, or k where all are.
  __device__ int find_bound() {
    uint32_t most = 0, least = 0xffffffffu;
    for_each_score([&](uint32_t score) {
      most = max(most, score);
      least = min(least, score);
    });
    most = warp_max(most);
    least = warp_min(least);
    int shift = 32 - __clz(static_cast<int>(most ^ least));  // bits that are not known yet
    bound_ = shift == 0 ? most : most & (0xfffffffeu << (shift - 1));
    int need = k_;
    while (shift > 0) {
      const int width = min(shift, 8);
      shift -= width;
      const uint32_t digit_of_most = (1u << width) - 1;
      count_digits(shift, digit_of_most);
      if (find_digit(shift, digit_of_most, &need)) return k_;
    }
    return need;
  }

  // Counts the digits at `shift` of all whose bits above them are the bound's.
  __device__ void count_digits(int shift, uint32_t most) {
    uint4* const fours = reinterpret_cast<uint4*>(digits_->counts);
    fours[lane_index()] = fours[kWarp + lane_index()] = make_uint4(0, 0, 0, 0);
    __syncwarp();
    for_each_score([&](uint32_t score) {
      const uint32_t digit = (score ^ bound_) >> shift;
      if (digit <= most) atomicAdd(digits_->counts + (most - digit), 1u);
    });
    __syncwarp();
  }

  // Adds the digit of the need-th best to the bound, and takes those above it from `need`. Whether
  // all that have it are needed.
  __device__ bool find_digit(int shift, uint32_t most, int* need) {
    const int lane = lane_index();
#pragma unroll 1
    for (int half = 0;; half += kWarp) {
      const uint4 four = reinterpret_cast<const uint4*>(digits_->counts)[half + lane];
      const int counts[4] = {static_cast<int>(four.x), static_cast<int>(four.y),
                             static_cast<int>(four.z), static_cast<int>(four.w)};
      const int mine = counts[0] + counts[1] + counts[2] + counts[3];
      int sum = mine;
#pragma unroll
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const int lower = __shfl_up_sync(kAllLanes, sum, offset);
        if (lane >= offset) sum += lower;
      }
      const unsigned reaching = __ballot_sync(kAllLanes, sum >= *need);
      if (reaching == 0) {
        *need -= __shfl_sync(kAllLanes, sum, kWarp - 1);
        continue;
      }
      const int owner = __ffs(static_cast<int>(reaching)) - 1;
      int place = 4 * (half + lane), rest = *need - (sum - mine), count = counts[0];
#pragma unroll
      for (int next = 1; next < 4; ++next) {
        if (rest <= count) break;
        rest -= count;
        count = counts[next];
        ++place;
      }
      place = __shfl_sync(kAllLanes, place, owner);
      bound_ |= (most - static_cast<uint32_t>(place)) << shift;
      *need = __shfl_sync(kAllLanes, rest, owner);
      return *need == __shfl_sync(kAllLanes, count, owner);
    }
  }

  State* state_;
  Digits* digits_;
  int room_;
  uint32_t beaten_;
};

}  // namespace longclock
