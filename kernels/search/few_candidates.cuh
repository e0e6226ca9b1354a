// SPDX-License-Identifier: Apache-2.0
// Memory-bound: a block's warps score rounds of 256 behaviours for all of its candidates, 32 each;
// then each warp selects for one or two of the candidates, from what lies in shared memory, while
// others begin the next round.
#pragma once

#include "longclock/common/launch.cuh"
#include "longclock/search/few_candidates.h"
#include "longclock/search/few_tiles.cuh"
#include "longclock/selection/round_selector.cuh"

namespace longclock {

constexpr int kFewWarps = kFewThreads / kWarp;
static_assert(RoundSelector::kRound == kFewWarps * kWarpRows);
static_assert(kFewThreads == kSelectorThreads);  // of a sort
constexpr int kRoundStride = RoundSelector::kRound + kScoresApart;
constexpr int kRoundBytes = 2 * kRoundStride * 4;  // of two rounds

// Shared memory of a block: queries, scores of two rounds, lists of what was taken, and where they
// are long, what each warp counts in.
struct FewMemory {
  char* queries;     // [most, row_bytes]
  uint32_t* scores;  // [2, most, kRoundStride]
  char* lists;       // [most, list_bytes]
  int list_bytes;
  RoundSelector::Digits* digits;  // [kFewWarps]
  __device__ FewMemory(uint4* memory, const FewPlan& plan)
      : queries(reinterpret_cast<char*>(memory)),
        scores(reinterpret_cast<uint32_t*>(queries + plan.tiles.most * plan.tiles.row_bytes)),
        lists(queries + plan.front_bytes),
        list_bytes(plan.list_bytes),
        digits(reinterpret_cast<RoundSelector::Digits*>(lists + plan.tiles.most * list_bytes)) {}
  __device__ RoundSelector::State* list(int candidate) const {
    return reinterpret_cast<RoundSelector::State*>(lists + candidate * list_bytes);
  }
};

// Sorts what a candidate's list holds, in memory for as many and more, and writes it. By the block.
__device__ __forceinline__ void write_list(const DeviceSearchTopKParams& p, int64_t q,
                                           const RoundSelector::State* list, TopKEntry* memory) {
  const TopKEntry* const entries = reinterpret_cast<const TopKEntry*>(list + 1);
  const int count = list->count;
  for (int i = threadIdx.x; i < count; i += kFewThreads) memory[i] = entries[i];
  sort_entries(memory, count);
  for (int64_t i = threadIdx.x; i < p.k; i += kFewThreads) {
    const TopKEntry entry = i < count ? memory[i] : 0;
    p.scores[q * p.k + i] = entry == 0 ? -INFINITY : entry_score(entry);
    p.indices[q * p.k + i] = entry == 0 ? -1 : entry_index(entry);
  }
  __syncthreads();
}

template <class T, RowForm kForm>
__global__ void __launch_bounds__(kFewThreads, 2)
    few_candidates_kernel(const __grid_constant__ DeviceSearchTopKParams p,
                          const __grid_constant__ FewPlan plan) {
  extern __shared__ uint4 dynamic[];
  __shared__ FewShared shared;
  const FewMemory memory(dynamic, plan);
  if (!begin_few<T>(p.search, plan.tiles, &shared, memory.queries)) return;
  const CandidateRange& candidates = shared.candidates;  // read again: registers are short
  const unsigned length = static_cast<unsigned>(shared.view.length), part = few_part(plan.tiles);
  const unsigned parts = static_cast<unsigned>(p.parts), step = (length + parts - 1) / parts;
  const unsigned begin = min(length, part * step), end = min(length, (part + 1) * step);
  const FewScorer<T, kForm> scorer(p.search, shared.view, shared.time, memory.queries,
                                   plan.tiles.row_bytes, candidates.count);
  // Calls f(selector, candidate) for the candidates whose best this warp selects.
  const auto for_each_own = [&](const auto& f) {
#pragma unroll 1
    for (int i = warp_index(); i < candidates.count; i += kFewWarps) {
      RoundSelector own(memory.list(i), memory.digits + warp_index(), static_cast<int>(p.k),
                        plan.room);
      f(own, i);
    }
  };
  for (int i = warp_index(); i < candidates.count; i += kFewWarps)
    RoundSelector::begin(memory.list(i));
  uint32_t *scores = memory.scores, *next = scores + plan.tiles.most * kRoundStride;
  for (unsigned at = begin; at < end; at += RoundSelector::kRound) {
    const int first = warp_index() * kWarpRows;
    scorer.score(at + first, end, [&](int candidate, int row, float score, bool valid) {
      scores[candidate * kRoundStride + first + row] = valid ? ordered_score(score) : 0;
    });
    __syncthreads();
    for_each_own([&](RoundSelector& own, int candidate) {
      own.take(scores + candidate * kRoundStride, at);
    });
    uint32_t* const done = scores;
    scores = next;
    next = done;
  }
  const bool by_block = parts == 1 && p.k > kMaxWarpK;  // puts in order
  for_each_own([&](RoundSelector& own, int candidate) {
    const int64_t q = candidates.query + candidate;
    if (parts > 1) {
      TopKEntry* const entries = p.entries + (q * parts + part) * p.k;
      own.for_each_entry([&](int i, TopKEntry entry) { entries[i] = entry; });
    } else if (by_block) {
      own.leave_best();
    } else {
      own.write_sorted(p.scores + q * p.k, p.indices + q * p.k, [](int index) { return index; });
    }
  });
  if (!by_block) return;
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < candidates.count; ++i) {
    write_list(p, candidates.query + i, memory.list(i), reinterpret_cast<TopKEntry*>(dynamic));
  }
}

// All tiles, of the element and the std::integral_constant<RowForm, ...> that with(f) calls f with.
template <class With>
int launch_few_tiles(const DeviceSearchTopKParams& p, const FewPlan& plan, CudaStream stream,
                     const With& with) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int bytes = plan.front_bytes + plan.tiles.most * plan.list_bytes + plan.digit_bytes;
  const unsigned blocks = grid_of(plan.tiles.count * p.parts);
  cudaError_t error = cudaSuccess;
  with([&](auto element, auto form) {
    auto* const kernel = few_candidates_kernel<decltype(element), form>;
    error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    kernel<<<blocks, kFewThreads, bytes, stream>>>(p, plan);
    error = cudaGetLastError();
  });
  return error;
}

}  // namespace longclock
