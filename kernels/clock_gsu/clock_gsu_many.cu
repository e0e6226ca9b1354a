// SPDX-License-Identifier: Apache-2.0
// What the sweeps of clock_gsu_sweep.cuh leave to choose from, a block a query; and the launches.
#include "../block_topk/block_selector.cuh"
#include "../common/device.h"
#include "../gsu_score/search.cuh"
#include "candidate_tile.cuh"
#include "clock_gsu_many.h"

namespace longclock {
namespace {

// Fewer candidates a sequence fill so little of a tile that a block for each of them is faster.
constexpr int64_t kFewestCandidates = 16;
constexpr int64_t kWorkspaceWords = int64_t{64} << 20;  // 256 MB, or one query's where that is more
constexpr int kMostRowBytes = 512;

// The k best blocks of a query, in order of block: their delegates become their places.
__global__ void __launch_bounds__(kSelectorThreads)
    clock_gsu_choose_kernel(const __grid_constant__ ClockGsuManyParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, p.round_begin + row));
  const int blocks = (view.length + kDelegateKeys - 1) / kDelegateKeys;
  uint32_t* const delegates = p.delegates + row * int64_t{p.blocks};
  BlockSelector best(&shared, memory, plan, static_cast<int>(p.k));
  for (int at = 0; at < blocks; at += plan.capacity) {
    const int n = min(plan.capacity, blocks - at);
    best.begin();
#pragma unroll 4
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      const uint32_t delegate = i < n ? delegates[at + i] : kNobody;
      best.push(i, delegate == kNobody ? 0 : ordered_score(__uint_as_float(delegate)));
    }
    best.end(n, [&](int i) { return at + i; });
  }
  for (int i = threadIdx.x; i < blocks; i += kSelectorThreads) delegates[i] = kNotChosen;
  __syncthreads();
  uint32_t* const chosen = p.chosen + row * p.k;
  best.for_each_entry(p.k, [&](int64_t i, TopKEntry entry) {
    const uint32_t block = entry == 0 ? kNotChosen : static_cast<uint32_t>(entry_index(entry));
    chosen[i] = block;
    if (entry != 0) delegates[block] = static_cast<uint32_t>(row * p.k + i);
  });
}

// The k best of a query's chosen blocks, sorted.
__global__ void __launch_bounds__(kSelectorThreads)
    clock_gsu_select_kernel(const __grid_constant__ ClockGsuManyParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x, q = p.round_begin + row;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, q));
  const uint32_t* const chosen = p.chosen + row * p.k;
  const float* const scores = p.block_scores + row * p.k * kDelegateKeys;
  const int survivors = static_cast<int>(p.k) * kDelegateKeys;
  const auto index_of = [&](int i) {
    return chosen[i / kDelegateKeys] * kDelegateKeys + static_cast<uint32_t>(i % kDelegateKeys);
  };
  BlockSelector best(&shared, memory, plan, static_cast<int>(p.k));
  for (int at = 0; at < survivors; at += plan.capacity) {
    const int n = min(plan.capacity, survivors - at);
    best.begin();
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      bool there = i < n && chosen[(at + i) / kDelegateKeys] != kNotChosen;
      if (there) {
        const uint32_t m = index_of(at + i);
        there = m < static_cast<uint32_t>(view.length) &&
                (!p.search.filtered || is_there(p.search, view, m));
      }
      best.push(i, there ? ordered_score(scores[at + i]) : 0);
    }
    best.end(n, [&](int i) { return index_of(at + i); });
  }
  best.write_sorted(p.k, p.scores + q * p.k, p.indices + q * p.k);
}

template <class Kernel>
cudaError_t launch_selection(Kernel* kernel, const ClockGsuManyParams& p, const SelectorPlan& plan,
                             CudaStream stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.bytes());
  if (error != cudaSuccess) return error;
  const unsigned rows = static_cast<unsigned>(p.round_end - p.round_begin);
  kernel<<<rows, kSelectorThreads, plan.bytes(), stream>>>(p, plan);
  return cudaGetLastError();
}

int64_t longest_of(const DeviceSearch& search) {
  const int64_t longest = search.layout == SearchLayout::kDense ? search.columns : search.positions;
  return longest < kMostBehaviours ? longest : kMostBehaviours;
}

}  // namespace

int plan_clock_gsu_many(const DeviceSearch& search, int64_t k, ClockGsuManyPlan* plan) {
  *plan = {};
  const Behaviours& b = search.behaviours;
  const bool many = search.layout == SearchLayout::kDense
                        ? search.candidates >= kFewestCandidates
                        : search.layout == SearchLayout::kRagged && search.query_offsets;
  if (!many || search.sequences == 0 || search.queries == 0 || k == 0) return cudaSuccess;
  if (!aligned16(b.keys, b.key_row_stride, b.dim, b.dtype) || search.sequence_bytes % 16 != 0 ||
      b.dim == 0 || b.dim * size_of(b.dtype) > kMostRowBytes || search.table_rows >= kNotChosen) {
    return cudaSuccess;
  }
  cudaFuncAttributes code;
  const cudaError_t error = cudaFuncGetAttributes(&code, clock_gsu_choose_kernel);
  if (error != cudaSuccess) return error;
  plan->suits = code.ptxVersion >= 80;
  plan->blocks = (longest_of(search) + kDelegateKeys - 1) / kDelegateKeys;
  const int64_t words = plan->blocks + k * (1 + kDelegateKeys);
  const int64_t most = kWorkspaceWords / words < 1 ? 1 : kWorkspaceWords / words;
  plan->round_queries = search.queries < most ? search.queries : most;
  plan->workspace_words = plan->round_queries * words;
  return cudaSuccess;
}

int launch_clock_gsu_many(const ClockGsuDeviceParams& params, const ClockGsuManyPlan& plan,
                          void* workspace, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const DeviceSearch& search = params.search;
  const int shared = static_cast<int>(sizeof(BlockSelector::Shared));
  const SelectorPlan choose = plan_selector(plan.blocks, params.k, shared, device);
  const SelectorPlan select = plan_selector(params.k * kDelegateKeys, params.k, shared, device);
  const auto sweep = search.behaviours.dtype == DType::kFloat32   ? launch_sweep_fp32
                     : search.behaviours.dtype == DType::kFloat16 ? launch_sweep_fp16
                                                                  : launch_sweep_bf16;
  ClockGsuManyParams p{};
  p.search = search;
  p.k = params.k;
  p.multiprocessors = device.multiprocessors;
  p.blocks = static_cast<unsigned>(plan.blocks);
  p.block_scores = static_cast<float*>(workspace);
  p.chosen =
      reinterpret_cast<uint32_t*>(p.block_scores + plan.round_queries * params.k * kDelegateKeys);
  p.delegates = p.chosen + plan.round_queries * params.k;
  p.scores = params.scores;
  p.indices = params.indices;
  for (int64_t begin = 0; begin < search.queries; begin = p.round_end) {
    const int64_t left = search.queries - begin;
    p.round_begin = begin;
    p.round_end = begin + (left < plan.round_queries ? left : plan.round_queries);
    if (search.layout == SearchLayout::kDense) {
      p.first_sequence = begin / search.candidates;
      p.round_sequences = (p.round_end - 1) / search.candidates - p.first_sequence + 1;
    } else {
      p.first_sequence = 0;
      p.round_sequences = search.sequences;
    }
    int error = sweep(p, Sweep::kDelegates, stream);
    if (error == 0) error = launch_selection(clock_gsu_choose_kernel, p, choose, stream);
    if (error == 0) error = sweep(p, Sweep::kScores, stream);
    if (error == 0) error = launch_selection(clock_gsu_select_kernel, p, select, stream);
    if (error != 0) return error;
  }
  return cudaSuccess;
}

}  // namespace longclock
