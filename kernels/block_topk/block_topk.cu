// SPDX-License-Identifier: Apache-2.0
// One block a row, or a part of one: chunks of scores go through a BlockSelector. Where there are
// fewer rows than multiprocessors a row is cut into parts, whose best are merged by a second
// launch.
#include "../common/launch.cuh"
#include "block_selector.cuh"
#include "block_topk.h"

namespace longclock {
namespace {

constexpr int64_t kFewestScores = 1024;  // of a part; and four times k, which the merge reads again

template <class T>
__global__ void __launch_bounds__(kSelectorThreads)
    block_topk_kernel(const BlockTopKParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector<>::Shared shared;
  const int64_t row = blockIdx.x / p.parts, part = blockIdx.x % p.parts;
  const T* scores = static_cast<const T*>(p.scores) + row * p.row_stride;
  int64_t length = p.columns;
  if (p.lengths) {
    const int64_t given = p.lengths[row];
    if (p.check)
      device_check(given >= 0 && given <= p.columns, "lengths must be from 0 to M", "block_topk");
    length = min(max(given, int64_t{0}), p.columns);
  }
  const int64_t step = (length + p.parts - 1) / p.parts;
  const int64_t begin = min(length, part * step), end = min(length, begin + step);
  BlockSelector<> best(&shared, memory, plan, static_cast<int>(p.k));
  for (int64_t at = begin; at < end; at += plan.capacity) {
    const int n = static_cast<int>(min(int64_t{plan.capacity}, end - at));
    best.begin();
#pragma unroll 4
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      best.push(i, i < n ? ordered_score(widen(scores[at + i])) : 0);
    }
    best.end(n, [&](int i) { return at + i; });
  }
  if (p.parts > 1) {
    TopKEntry* const entries = p.entries + blockIdx.x * p.k;
    best.for_each_entry(p.k, [&](int64_t i, TopKEntry entry) { entries[i] = entry; });
  } else {
    best.write_sorted(p.k, static_cast<T*>(p.top_scores) + row * p.k, p.indices + row * p.k);
  }
}

// One block a row. Parts follow each other in order of index, and so do the entries of each.
template <class T>
__global__ void __launch_bounds__(kSelectorThreads)
    topk_merge_kernel(const TopKEntry* __restrict__ entries, int64_t count, int64_t k,
                      const SelectorPlan plan, T* top_scores, int64_t* indices) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector<>::Shared shared;
  const TopKEntry* row = entries + blockIdx.x * count;
  BlockSelector<> best(&shared, memory, plan, static_cast<int>(k));
  for (int64_t at = 0; at < count; at += plan.capacity) {
    const int n = static_cast<int>(min(int64_t{plan.capacity}, count - at));
    best.begin();
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      best.push(i, i < n ? static_cast<uint32_t>(row[at + i] >> 32) : 0);
    }
    best.end(n, [&](int i) { return entry_index(row[at + i]); });
  }
  best.write_sorted(k, top_scores + blockIdx.x * k, indices + blockIdx.x * k);
}

// One block a row: zeros, then the gradients at their indices, which differ.
template <class T>
__global__ void __launch_bounds__(kSelectorThreads)
    block_topk_backward_kernel(const BlockTopKBackwardParams p) {
  T* out = static_cast<T*>(p.out) + blockIdx.x * p.columns;
  const T* grad = static_cast<const T*>(p.grad) + blockIdx.x * p.k;
  const int64_t* indices = p.indices + blockIdx.x * p.k;
  for (int64_t i = threadIdx.x; i < p.columns; i += kSelectorThreads) out[i] = T{};
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.k; i += kSelectorThreads) {
    const int64_t index = indices[i];
    if (index >= 0 && index < p.columns) out[index] = grad[i];
  }
}

}  // namespace

int topk_parts(int64_t rows, int64_t longest, int64_t k, int64_t* parts) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  // Two waves of three blocks a multiprocessor, so that parts of unequal cost even out.
  const int64_t wanted = (6 * int64_t{device.multiprocessors} + rows - 1) / rows;
  const int64_t most = longest / (4 * k < kFewestScores ? kFewestScores : 4 * k);
  *parts = most < 1 ? 1 : wanted < most ? wanted : most;
  return cudaSuccess;
}

int launch_topk_merge(const TopKMergeParams& p, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t count = p.parts * p.k;
  const SelectorPlan plan = plan_selector(count, p.k, sizeof(BlockSelector<>::Shared), device);
  cudaError_t error = cudaSuccess;
  LONGCLOCK_WITH_DTYPE(p.dtype, T, {
    error = allow_all_shared(topk_merge_kernel<T>, device);
    if (error != cudaSuccess) return error;
    topk_merge_kernel<T><<<static_cast<unsigned>(p.rows), kSelectorThreads, plan.bytes(), stream>>>(
        p.entries, count, p.k, plan, static_cast<T*>(p.top_scores), p.indices);
  });
  return cudaGetLastError();
}

int launch_block_topk(const BlockTopKParams& p, CudaStream stream) {
  if (p.rows == 0 || p.k == 0) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t longest = (p.columns + p.parts - 1) / p.parts;
  const SelectorPlan plan = plan_selector(longest, p.k, sizeof(BlockSelector<>::Shared), device);
  cudaError_t error = cudaSuccess;
  LONGCLOCK_WITH_DTYPE(p.dtype, T, {
    error = allow_all_shared(block_topk_kernel<T>, device);
    if (error != cudaSuccess) return error;
    block_topk_kernel<T>
        <<<static_cast<unsigned>(p.rows * p.parts), kSelectorThreads, plan.bytes(), stream>>>(p,
                                                                                              plan);
  });
  error = cudaGetLastError();
  if (error != cudaSuccess || p.parts == 1) return error;
  return launch_topk_merge({p.dtype, p.entries, p.rows, p.parts, p.k, p.top_scores, p.indices},
                           stream);
}

int launch_block_topk_backward(const BlockTopKBackwardParams& p, CudaStream stream) {
  if (p.rows == 0 || p.columns == 0) return cudaSuccess;
  LONGCLOCK_WITH_DTYPE(p.dtype, T,
                       (block_topk_backward_kernel<T>
                        <<<static_cast<unsigned>(p.rows), kSelectorThreads, 0, stream>>>(p)));
  return cudaGetLastError();
}

}  // namespace longclock
