// SPDX-License-Identifier: Apache-2.0
// The k best of any number of scores, by one block. Scores come in tiles that fit shared memory,
// as 32-bit integers in the order of a selection; what was best so far is carried from tile to
// tile. Each of 256 threads remembers the largest score that it pushes: the k-th largest of these
// is a lower bound of the k-th best, and little more than k scores are not below it. They are
// compared each with each. Where they are many all the same (ties, or the largest in few threads),
// or k is large, a radix search, 8 bits a pass, finds the k-th best itself; what is above it and,
// of its equals, the first are taken in order of index. So the result is exact and unique for every
// input.
#pragma once

#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/selection/selection.h"
#include "longclock/selection/selector_plan.cuh"
#include "longclock/selection/sort_entries.cuh"
#include "longclock/selection/take_in_order.cuh"

namespace longclock {

constexpr int kDigits = 256;  // a thread each
static_assert(kDigits == kSelectorThreads);

class BlockSelector {
 public:
  struct Shared {
    uint32_t histogram[kDigits];
    uint32_t warp_sums[2][kSelectorThreads / kWarp];
    uint32_t digit, rest, total;
    int carried;
    uint32_t threshold;  // later scores count only above it: those carried are k, or it is 0
  };

  // memory: plan.bytes(), aligned to 16 bytes. plan.k >= 1. By all threads, as everything but push.
  __device__ BlockSelector(Shared* shared, void* memory, const SelectorPlan& plan)
      : shared_(shared),
        plan_(plan),
        best_(static_cast<TopKEntry*>(memory)),
        scores_(reinterpret_cast<uint32_t*>(next() + plan.taken)) {
    if (threadIdx.x == 0) shared->carried = shared->threshold = 0;
    __syncthreads();
  }

  // Before the scores of a tile.
  __device__ void begin() { largest_ = 0; }

  // How many places of a tile of n scores must be pushed: passes read four at a time.
  __device__ static int places(int n) { return (n + 3) / 4 * 4; }

  // Score `at` of the tile, by the thread that has it; 0: not valid.
  __device__ void push(int at, uint32_t ordered) { scores_[at] = counted(ordered); }

  // Scores 4 i to 4 i + 3.
  __device__ void push_four(int i, const uint4& ordered) {
    reinterpret_cast<uint4*>(scores_)[i] =
        make_uint4(counted(ordered.x), counted(ordered.y), counted(ordered.z), counted(ordered.w));
  }

  // After `n` scores; index_of(at) is their index, of equals larger than those before. All threads.
  template <class IndexOf>
  __device__ void end(int n, const IndexOf& index_of) {
    if (!__syncthreads_or(largest_ != 0)) return;  // nothing beats what is carried
    uint32_t threshold;
    int taken;
    bool exact = !compares();
#pragma unroll 1
    for (;; exact = true) {
      // 1 is no score, and below all.
      threshold = max(exact ? kth_best(n) : kth_largest(), 1);
      taken = take(n, threshold, index_of);
      if (taken <= plan_.taken) break;
    }
    __syncthreads();
    if (threadIdx.x == 0) shared_->carried = min(taken, plan_.k);
    if (threadIdx.x == 0 && taken <= plan_.k) shared_->threshold = threshold;
    for (int i = threadIdx.x; i < taken; i += kSelectorThreads) {
      const TopKEntry entry = next()[i];
      const int place = compares() ? count_larger(next(), taken, entry) : i;
      if (place < plan_.k) best_[place] = entry;
      if (place == plan_.k - 1 && taken > plan_.k) shared_->threshold = ordered_score_of(entry);
    }
    __syncthreads();
  }

  // Calls f(i, entry) for the best of all tiles, equals in order of index, padded with zeros to k.
  template <class F>
  __device__ void for_each_entry(int64_t k, const F& f) const {
    for (int64_t i = threadIdx.x; i < k; i += kSelectorThreads) {
      f(i, i < shared_->carried ? best_[i] : 0);
    }
  }

  // The same, all in order of index.
  template <class F>
  __device__ void for_each_by_index(int64_t k, const F& f) const {
    for_each_entry(k, [&](int64_t i, TopKEntry entry) {
      if (compares() && entry != 0) {
        i = 0;
        for (int j = 0; j < shared_->carried; ++j) i += entry_index(best_[j]) < entry_index(entry);
      }
      f(i, entry);
    });
  }

  // The best, sorted, to scores [k] and indices [k], padded with (-inf, -1).
  template <class T>
  __device__ void write_sorted(int64_t k, T* scores, int64_t* indices) {
    if (!compares()) sort_entries(best_, shared_->carried);
    for (int64_t i = threadIdx.x; i < k; i += kSelectorThreads) {
      const TopKEntry entry = i < shared_->carried ? best_[i] : 0;
      scores[i] = narrow<T>(entry == 0 ? -INFINITY : entry_score(entry));
      indices[i] = entry == 0 ? -1 : entry_index(entry);
    }
  }

 private:
  // Whether the largest of the threads bound the k-th best. What is carried is then sorted; else it
  // lies in order of index.
  __device__ bool compares() const { return plan_.k <= kMaxCompared; }

  // A score as it is kept: 0 unless it beats what is carried.
  __device__ uint32_t counted(uint32_t ordered) {
    const uint32_t kept = ordered > shared_->threshold ? ordered : 0;
    largest_ = max(largest_, kept);
    return kept;
  }

  // The k-th largest of the threads' largest, bit by bit; 0 where fewer have something.
  __device__ uint32_t kth_largest() const {
    uint32_t found = 0;
    for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
      const int count = __syncthreads_count(largest_ >= (found | bit));
      if (count >= plan_.k) found |= bit;
      if (count == plan_.k) break;
    }
    return found;
  }

  // The k-th best score of the tile and the carried; 0 where they are k or fewer.
  __device__ uint32_t kth_best(int n) {
    uint32_t found = 0;
    int need = plan_.k;
    for (int shift = 24; shift >= 0; shift -= 8) {
      count_digits(n, found, shift);
      find_digit(need);
      if (shift == 24 && static_cast<int>(shared_->total) <= plan_.k) return 0;
      found = found << 8 | shared_->digit;
      need = static_cast<int>(shared_->rest);
    }
    return found;
  }

  // How many of n entries are larger than one.
  __device__ static int count_larger(const TopKEntry* entries, int n, TopKEntry than) {
    int count = n % 2 == 1 && entries[n - 1] > than;
#pragma unroll 4
    for (int i = 0; i < n / 2; ++i) {
      const ulonglong2 two = reinterpret_cast<const ulonglong2*>(entries)[i];
      count += (two.x > than) + (two.y > than);
    }
    return count;
  }

  __device__ void clear_histogram() { shared_->histogram[threadIdx.x] = 0; }

  // The digit of the need-th best by the histogram: shared digit, and as rest which of that digit
  // it is; total: all that were counted. A thread a digit, the first has the largest.
  __device__ void find_digit(int need) {
    const int digit = kDigits - 1 - static_cast<int>(threadIdx.x);
    const uint32_t mine = shared_->histogram[digit], wanted = static_cast<uint32_t>(need);
    const int lane = lane_index(), warp = warp_index();
    uint32_t sum = mine;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const uint32_t before = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= offset) sum += before;
    }
    if (lane == kWarp - 1) shared_->warp_sums[0][warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; ++w) sum += shared_->warp_sums[0][w];
    if (sum >= wanted && sum - mine < wanted) {
      shared_->digit = static_cast<uint32_t>(digit);
      shared_->rest = wanted - (sum - mine);
    }
    if (digit == 0) shared_->total = sum;
    __syncthreads();
  }

  // Counts the digit at `shift` of all whose digits above it are `prefix`.
  __device__ void count_digits(int n, uint32_t prefix, int shift) {
    clear_histogram();
    __syncthreads();
    const auto count = [&](uint32_t ordered) {
      if (ordered != 0 && (shift == 24 || ordered >> (shift + 8) == prefix)) {
        atomicAdd(&shared_->histogram[ordered >> shift & 0xff], 1);
      }
    };
    for (int i = threadIdx.x; i < shared_->carried; i += kSelectorThreads) {
      count(static_cast<uint32_t>(best_[i] >> 32));
    }
    for (int i = threadIdx.x; i < places(n) / 4; i += kSelectorThreads) {
      const uint4 four = fours()[i];
      count(four.x);
      count(four.y);
      count(four.z);
      count(four.w);
    }
    __syncthreads();
  }

  // Fours of the tile: a warp's, of those that follow each other from warp to warp.
  struct Run {
    int begin, end;
  };
  __device__ static Run run_of_warp(int n) {
    const int all = places(n) / 4;
    const int run = (all + kSelectorThreads - 1) / kSelectorThreads * kWarp;
    const int begin = warp_index() * run;
    return {begin, min(all, begin + run)};
  }

  // Moves what is not below the threshold to next(): first of the carried, then of the tile, a run
  // of it by each warp. Each counts, then writes. Where all have room and will be compared, in any
  // order; else what is above the threshold and, where these are fewer than k, the first of its
  // equals, in order of index. Returns how many; where there is no room for them nothing is moved.
  template <class IndexOf>
  __device__ int take(int n, uint32_t threshold, const IndexOf& index_of) {
    const Run run = run_of_warp(n);
    ReachingCounts all, before;
    count_reaching(run, threshold, &all, &before);
    if (compares() && all.above + all.equal <= plan_.taken) {
      take_all(run, threshold, before.above + before.equal, index_of);
      return all.above + all.equal;
    }
    const int ties = min(all.equal, max(plan_.k - all.above, 0));
    const int taken = all.above + ties;
    if (taken > plan_.taken) return taken;
    take_run_in_order(run, threshold, ties, before, index_of);
    return taken;
  }

  // ReachingCounts in the carried, which are the first warp's, and in the tile: all, and those of
  // the warps before this one.
  __device__ void count_reaching(const Run& run, uint32_t threshold, ReachingCounts* all,
                                 ReachingCounts* before) {
    const int lane = lane_index(), warp = warp_index();
    int above = 0, equal = 0;
    const auto count = [&](uint32_t ordered) {
      above += ordered > threshold;
      equal += ordered == threshold;
    };
    for (int i = lane; warp == 0 && i < shared_->carried; i += kWarp) {
      count(static_cast<uint32_t>(best_[i] >> 32));
    }
    for (int i = run.begin + lane; i < run.end; i += kWarp) {
      const uint4 four = fours()[i];
      count(four.x);
      count(four.y);
      count(four.z);
      count(four.w);
    }
    above = warp_sum(above);
    equal = warp_sum(equal);
    if (lane == 0) {
      shared_->warp_sums[0][warp] = above;
      shared_->warp_sums[1][warp] = equal;
    }
    __syncthreads();
    *all = *before = {0, 0};
#pragma unroll
    for (int w = 0; w < kSelectorThreads / kWarp; ++w) {
      if (w == warp) *before = *all;
      all->above += static_cast<int>(shared_->warp_sums[0][w]);
      all->equal += static_cast<int>(shared_->warp_sums[1][w]);
    }
  }

  // Moves all that reach the threshold, to after the `count` that the warps before this one have.
  template <class IndexOf>
  __device__ void take_all(const Run& run, uint32_t threshold, int count, const IndexOf& index_of) {
    const int lane = lane_index();
    const auto write = [&](uint32_t ordered, const auto& entry_of) {
      const bool counts = ordered >= threshold;
      const unsigned counting = __ballot_sync(kAllLanes, counts);
      if (counts) next()[count + __popc(counting & ((1u << lane) - 1))] = entry_of();
      count += __popc(counting);
    };
    for (int first = 0; warp_index() == 0 && first < shared_->carried; first += kWarp) {
      const TopKEntry entry = first + lane < shared_->carried ? best_[first + lane] : 0;
      write(ordered_score_of(entry), [&] { return entry; });
    }
    for (int first = run.begin; first < run.end; first += kWarp) {
      const int at = first + lane;
      const uint4 four = at < run.end ? fours()[at] : make_uint4(0, 0, 0, 0);
      if (!__any_sync(kAllLanes, largest_of(four) >= threshold)) continue;
      const uint32_t ordered[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        write(ordered[i], [&] { return topk_entry_of(ordered[i], index_of(4 * at + i)); });
      }
    }
  }

  // Moves what is above the threshold and the first `ties` that are equal to it, in order of index;
  // before: what the warps before this one have.
  template <class IndexOf>
  __device__ void take_run_in_order(const Run& run, uint32_t threshold, int ties,
                                    ReachingCounts before, const IndexOf& index_of) {
    const int lane = lane_index();
    for (int first = 0; warp_index() == 0 && first < shared_->carried; first += kWarp) {
      const TopKEntry entry = first + lane < shared_->carried ? best_[first + lane] : 0;
      const uint32_t ordered[1] = {static_cast<uint32_t>(entry >> 32)};
      take_in_order(ordered, threshold, ties, &before, [&](int) { return entry; }, next());
    }
    for (int first = run.begin; first < run.end; first += kWarp) {
      const int at = first + lane;
      const uint4 four = at < run.end ? fours()[at] : make_uint4(0, 0, 0, 0);
      const uint32_t best = largest_of(four);
      const bool some = best > threshold || (best == threshold && before.equal < ties);
      if (!__any_sync(kAllLanes, some)) continue;
      const uint32_t ordered[4] = {four.x, four.y, four.z, four.w};
      take_in_order(
          ordered, threshold, ties, &before,
          [&](int i) { return topk_entry_of(ordered[i], index_of(4 * at + i)); }, next());
    }
  }

  __device__ static uint32_t largest_of(const uint4& four) {
    return max(max(four.x, four.y), max(four.z, four.w));
  }

  // What is taken from a tile and the carried.
  __device__ TopKEntry* next() const { return best_ + plan_.room; }
  __device__ const uint4* fours() const { return reinterpret_cast<const uint4*>(scores_); }

  Shared* shared_;
  const SelectorPlan& plan_;
  TopKEntry* best_;
  uint32_t* scores_;
  uint32_t largest_;
};

}  // namespace longclock
