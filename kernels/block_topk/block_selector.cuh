// SPDX-License-Identifier: Apache-2.0
// The k best of any number of scores, by one block. Scores come in chunks that fit shared memory,
// as 32-bit integers in the order of a selection; what was best so far is carried from chunk to
// chunk. A radix search, 8 bits a pass, finds the k-th best of a chunk and the carried together;
// one more pass, in order of index, takes what is above it and, of its equals, the first. So the
// result is exact and unique for every input, and the cost of a chunk hardly depends on the data.
#pragma once

#include "../common/device.h"
#include "../common/vector16.cuh"
#include "../common/warp.cuh"
#include "selection.h"

namespace longclock {

constexpr int kSelectorThreads = 256;

// Shared memory of a selection.
struct SelectorPlan {
  int capacity;  // scores of a chunk
  int room;      // entries carried: a power of two, k and 32 at least, for the sort
  int bytes() const { return capacity * 4 + 2 * room * 8; }
};

// For at most `longest` scores a block, beside `other` bytes of the kernel's own. Chunks are equal
// and no longer than lets three blocks share a multiprocessor.
inline SelectorPlan plan_selector(int64_t longest, int64_t k, int other,
                                  const DeviceLimits& device) {
  constexpr int kFewest = 4096;  // below this, passes over a chunk cost more than occupancy gains
  constexpr int kStatic = 48 * 1024;  // what needs no opting in
  SelectorPlan plan{0, kWarp};
  while (plan.room < k) plan.room *= 2;
  const int fixed = other + 2 * plan.room * 8;
  const int third = device.shared_per_multiprocessor / 3 - device.shared_reserved;
  int most = ((third < kStatic ? third : kStatic) - fixed) / 4;
  if (most < kFewest) {
    const int optin = (device.shared_optin - fixed) / 4;
    most = optin < kFewest ? optin : kFewest;
  }
  most = most / kWarp * kWarp;
  if (longest < 1) longest = 1;
  const int64_t chunks = (longest + most - 1) / most;
  const int64_t capacity = (longest + chunks - 1) / chunks;
  plan.capacity = static_cast<int>((capacity + kWarp - 1) / kWarp * kWarp);
  return plan;
}

constexpr int kDigits = 256;

// kThreads: of the block, 64, 128 or 256: fewer pass over a short row in fewer
// instructions.
template <int kThreads = kSelectorThreads>
class BlockSelector {
 public:
  struct Shared {
    alignas(16) uint32_t histogram[kDigits];
    uint32_t warp_sums[2][kThreads / kWarp];
    uint32_t digit, rest, total;
  };

  // memory: plan.bytes(), aligned to 16 bytes. k >= 1.
  __device__ BlockSelector(Shared* shared, void* memory, const SelectorPlan& plan, int k)
      : shared_(shared),
        best_(static_cast<TopKEntry*>(memory)),
        next_(best_ + plan.room),
        scores_(reinterpret_cast<uint32_t*>(next_ + plan.room)),
        k_(k) {}

  // Before the scores of a chunk.
  __device__ void begin() {
    clear_histogram();
    __syncthreads();
  }

  // How many places of a chunk of n scores must be pushed: passes read four at a time.
  __device__ static int places(int n) { return (n + 3) / 4 * 4; }

  // Score `at` of the chunk, by the thread that has it; 0: not there.
  __device__ void push(int at, uint32_t ordered) {
    const bool counts = ordered > bar_;
    scores_[at] = counts ? ordered : 0;
    if (counts) atomicAdd(&shared_->histogram[ordered >> 24], 1);
  }

  // Scores 4 i to 4 i + 3.
  __device__ void push_four(int i, const uint4& ordered) {
    const uint32_t words[4] = {ordered.x, ordered.y, ordered.z, ordered.w};
    uint32_t kept[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const bool counts = words[j] > bar_;
      kept[j] = counts ? words[j] : 0;
      if (counts) atomicAdd(&shared_->histogram[words[j] >> 24], 1);
    }
    reinterpret_cast<uint4*>(scores_)[i] = make_uint4(kept[0], kept[1], kept[2], kept[3]);
  }

  // After `n` scores; index_of(at) is their index, larger than all before. All threads.
  template <class IndexOf>
  __device__ void end(int n, const IndexOf& index_of) {
    __syncthreads();
    if (carried_ > 0) {
      find_digit(1);
      if (shared_->total == 0) return;  // nothing beats what is carried
      for (int i = threadIdx.x; i < carried_; i += kThreads) {
        atomicAdd(&shared_->histogram[best_[i] >> 56], 1);
      }
      __syncthreads();
    }
    uint32_t threshold = 0;
    int ties = 0;
    find_digit(k_);
    const int total = static_cast<int>(shared_->total);
    if (total > k_) {
      threshold = shared_->digit;
      ties = static_cast<int>(shared_->rest);
      for (int shift = 16; shift >= 0; shift -= 8) {
        count_digits(n, threshold, shift);
        find_digit(ties);
        threshold = threshold << 8 | shared_->digit;
        ties = static_cast<int>(shared_->rest);
      }
    }
    take(n, threshold, ties, index_of);
    carried_ = total < k_ ? total : k_;
    bar_ = threshold;
    __syncthreads();
    for (int i = threadIdx.x; i < carried_; i += kThreads) best_[i] = next_[i];
    __syncthreads();
  }

  // Calls f(i, entry) for the best of all chunks, in order of index, padded with zeros to k.
  template <class F>
  __device__ void for_each_entry(int64_t k, const F& f) const {
    for (int64_t i = threadIdx.x; i < k; i += kThreads) f(i, i < carried_ ? best_[i] : 0);
  }

  // The best, sorted, to scores [k] and indices [k], padded with (-inf, -1).
  template <class T>
  __device__ void write_sorted(int64_t k, T* scores, int64_t* indices) {
    sort();
    for (int64_t i = threadIdx.x; i < k; i += kThreads) {
      const TopKEntry entry = i < carried_ ? best_[i] : 0;
      scores[i] = narrow<T>(entry == 0 ? -INFINITY : entry_score(entry));
      indices[i] = entry == 0 ? -1 : entry_index(entry);
    }
  }

 private:
  static constexpr int kThreadDigits = kDigits / kThreads;
  struct alignas(4 * kThreadDigits) ThreadDigits {
    uint32_t counts[kThreadDigits];
  };

  // Best first: a bitonic network over a power of two, padded with zeros. What lies within 32
  // entries is exchanged between the registers of a warp.
  __device__ void sort() {
    int padded = kWarp;
    while (padded < carried_) padded *= 2;
    for (int i = carried_ + threadIdx.x; i < padded; i += kThreads) best_[i] = 0;
    __syncthreads();
    for (int first = warp_index() * kWarp; first < padded; first += kThreads) {
      TopKEntry& entry = best_[first + lane_index()];
#pragma unroll
      for (int size = 2; size <= kWarp; size *= 2) entry = merged(entry, first, size);
    }
    for (int size = 2 * kWarp; size <= padded; size *= 2) {
      for (int stride = size / 2; stride >= kWarp; stride /= 2) {
        __syncthreads();
        for (int i = threadIdx.x; i < padded / 2; i += kThreads) {
          const int low = 2 * i - (i & (stride - 1)), high = low + stride;
          const TopKEntry a = best_[low], b = best_[high];
          if ((a < b) == ((low & size) == 0)) {
            best_[low] = b;
            best_[high] = a;
          }
        }
      }
      __syncthreads();
      for (int first = warp_index() * kWarp; first < padded; first += kThreads) {
        TopKEntry& entry = best_[first + lane_index()];
        entry = merged(entry, first, size);
      }
    }
    __syncthreads();
  }

  // Entry first + lane after the strides below a warp of the network's step `size`.
  __device__ static TopKEntry merged(TopKEntry entry, int first, int size) {
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

  __device__ void clear_histogram() {
    reinterpret_cast<ThreadDigits*>(shared_->histogram)[threadIdx.x] = {};
  }

  // The digit of the need-th best by the histogram: shared digit, and as rest which of that digit
  // it is; total: all that were counted. The first thread has the largest digits.
  __device__ void find_digit(int need) {
    const int first = kDigits - kThreadDigits * (1 + static_cast<int>(threadIdx.x));
    const ThreadDigits digits = *reinterpret_cast<const ThreadDigits*>(&shared_->histogram[first]);
    uint32_t mine = 0;
#pragma unroll
    for (int i = 0; i < kThreadDigits; ++i) mine += digits.counts[i];
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
    const uint32_t wanted = static_cast<uint32_t>(need);
    if (sum >= wanted && sum - mine < wanted) {
      uint32_t before = sum - mine;
#pragma unroll
      for (int i = kThreadDigits - 1; i >= 0; --i) {
        if (before < wanted && before + digits.counts[i] >= wanted) {
          shared_->digit = static_cast<uint32_t>(first + i);
          shared_->rest = wanted - before;
        }
        before += digits.counts[i];
      }
    }
    if (threadIdx.x == kThreads - 1) shared_->total = sum;
    __syncthreads();
  }

  // Counts the digit at `shift` of all whose digits above it are `prefix`.
  __device__ void count_digits(int n, uint32_t prefix, int shift) {
    clear_histogram();
    __syncthreads();
    const auto count = [&](uint32_t ordered) {
      if (ordered != 0 && ordered >> (shift + 8) == prefix) {
        atomicAdd(&shared_->histogram[ordered >> shift & 0xff], 1);
      }
    };
    for (int i = threadIdx.x; i < carried_; i += kThreads) {
      count(static_cast<uint32_t>(best_[i] >> 32));
    }
    for (int i = threadIdx.x; i < places(n) / 4; i += kThreads) {
      const uint4 four = fours()[i];
      count(four.x);
      count(four.y);
      count(four.z);
      count(four.w);
    }
    __syncthreads();
  }

  // Moves what is above the threshold, and the first `ties` of its equals, to next_, in order of
  // index: first the carried, then the chunk, a run of it by each warp. Each counts, then writes.
  template <class IndexOf>
  __device__ void take(int n, uint32_t threshold, int ties, const IndexOf& index_of) {
    const int lane = lane_index(), warp = warp_index();
    const int all = places(n) / 4;
    const int run = (all + kThreads - 1) / kThreads * kWarp;
    const int begin = warp * run, end = min(all, begin + run);
    int above = 0, equal = 0;
    const auto count = [&](uint32_t ordered) {
      above += ordered > threshold;
      equal += ordered == threshold;
    };
    for (int i = lane; warp == 0 && i < carried_; i += kWarp) {
      count(static_cast<uint32_t>(best_[i] >> 32));
    }
    for (int i = begin + lane; i < end; i += kWarp) {
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
    above = equal = 0;  // from here on: of all that came before
    for (int w = 0; w < warp; ++w) {
      above += shared_->warp_sums[0][w];
      equal += shared_->warp_sums[1][w];
    }
    // Writes what counts of kCount entries a lane, that follow each other from lane to lane.
    const auto write = [&]<int kCount>(const uint32_t (&ordered)[kCount], const auto& entry_of) {
      int mine = 0;  // above in the lower half, equal in the upper
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        mine += (ordered[i] > threshold) + ((ordered[i] == threshold) << 16);
      }
      int sum = mine;
#pragma unroll
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const int before = __shfl_up_sync(kAllLanes, sum, offset);
        if (lane >= offset) sum += before;
      }
      int above_before = above + ((sum - mine) & 0xffff),
          equal_before = equal + ((sum - mine) >> 16);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const bool is_above = ordered[i] > threshold, is_equal = ordered[i] == threshold;
        if (is_above || (is_equal && equal_before < ties)) {
          next_[above_before + min(equal_before, ties)] = entry_of(i);
        }
        above_before += is_above;
        equal_before += is_equal;
      }
      const int total = __shfl_sync(kAllLanes, sum, kWarp - 1);
      above += total & 0xffff;
      equal += total >> 16;
    };
    for (int first = 0; warp == 0 && first < carried_; first += kWarp) {
      const TopKEntry entry = first + lane < carried_ ? best_[first + lane] : 0;
      const uint32_t ordered[1] = {static_cast<uint32_t>(entry >> 32)};
      write(ordered, [&](int) { return entry; });
    }
    for (int first = begin; first < end; first += kWarp) {
      const int at = first + lane;
      const uint4 four = at < end ? fours()[at] : make_uint4(0, 0, 0, 0);
      const uint32_t best = max(max(four.x, four.y), max(four.z, four.w));
      const bool some = best > threshold || (best == threshold && equal < ties);
      if (!__any_sync(kAllLanes, some)) continue;
      const uint32_t ordered[4] = {four.x, four.y, four.z, four.w};
      write(ordered, [&](int i) { return topk_entry_of(ordered[i], index_of(4 * at + i)); });
    }
  }

  __device__ const uint4* fours() const { return reinterpret_cast<const uint4*>(scores_); }

  Shared* shared_;
  TopKEntry* best_;
  TopKEntry* next_;
  uint32_t* scores_;
  int k_;
  int carried_ = 0;
  uint32_t bar_ = 0;  // later scores count only above it: those carried are k, or it is 0
};

}  // namespace longclock
