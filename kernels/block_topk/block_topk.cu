// SPDX-License-Identifier: Apache-2.0
// One block a row, or a part of one: chunks of scores go through a BlockSelector. Where there are
// fewer rows than multiprocessors a row is cut into parts, whose best are merged by a second
// launch.
#include "../common/launch.cuh"
#include "../common/vector16.cuh"
#include "block_selector.cuh"
#include "block_topk.h"

namespace longclock {
namespace {

constexpr int64_t kFewestScores = 1024;  // of a part; and four times k, which the merge reads again

constexpr int64_t kMostMerged = 8192;  // entries of a row, by one block

template <class T>
__global__ void __launch_bounds__(kSelectorThreads)
    block_topk_kernel(const BlockTopKParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x / p.parts, part = blockIdx.x % p.parts;
  const T* scores = static_cast<const T*>(p.scores) + row * p.row_stride;
  int64_t length = p.columns;
  if (p.lengths) {
    const int64_t given = p.lengths[row];
    if (p.check)
      device_check(given >= 0 && given <= p.columns, "lengths must be from 0 to M", "block_topk");
    length = min(max(given, int64_t{0}), p.columns);
  }
  // Parts begin where rows do with respect to pieces of 16 bytes.
  constexpr int kPiece = kVector16<T>;
  const int64_t step = ((length + p.parts - 1) / p.parts + kPiece - 1) / kPiece * kPiece;
  const int64_t begin = min(length, part * step), end = min(length, begin + step);
  const bool aligned = reinterpret_cast<uintptr_t>(scores) % 16 == 0;
  BlockSelector best(&shared, memory, plan);
  for (int64_t at = begin; at < end; at += plan.capacity) {
    const int n = static_cast<int>(min(int64_t{plan.capacity}, end - at));
    best.begin();
    const int pieces = aligned ? n / kPiece : 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < pieces; i += kSelectorThreads) {
      float values[kPiece];
      widen16<T>(load16<T, true>(scores + at, i * kPiece, n), values);
#pragma unroll
      for (int j = 0; j < kPiece; j += 4) {
        best.push_four((i * kPiece + j) / 4,
                       make_uint4(ordered_score(values[j]), ordered_score(values[j + 1]),
                                  ordered_score(values[j + 2]), ordered_score(values[j + 3])));
      }
    }
#pragma unroll 4
    for (int i = pieces * kPiece + threadIdx.x; i < best.places(n); i += kSelectorThreads) {
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

// Lists of k entries of each row, `stride` apart; a block merges those of a group of them.
struct MergeLists {
  TopKEntry* entries;
  int64_t row_entries;
  unsigned lists, stride, k;
  unsigned groups, group_lists;
};

// One block a row and group of its lists. Lists follow each other in order of index, and so do
// equals within each. kFinal: the one group's best are the result; else they take the place of its
// first list.
template <class T, bool kFinal>
__global__ void __launch_bounds__(kSelectorThreads)
    topk_merge_kernel(const MergeLists p, const SelectorPlan plan, T* top_scores,
                      int64_t* indices) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x / p.groups;
  const unsigned first = blockIdx.x % p.groups * p.group_lists;
  TopKEntry* const entries = p.entries + row * p.row_entries + int64_t{first} * p.stride;
  const unsigned count = min(p.group_lists, p.lists - first) * p.k;
  const auto entry = [&](unsigned i) {
    return entries[p.stride == p.k ? i : i / p.k * p.stride + i % p.k];
  };
  BlockSelector best(&shared, memory, plan);
  for (unsigned at = 0; at < count; at += plan.capacity) {
    const int n = min(plan.capacity, static_cast<int>(count - at));
    best.begin();
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      best.push(i, i < n ? ordered_score_of(entry(at + i)) : 0);
    }
    best.end(n, [&](int i) { return entry_index(entry(at + i)); });
  }
  if constexpr (kFinal) {
    best.write_sorted(p.k, top_scores + row * p.k, indices + row * p.k);
  } else {
    best.for_each_entry(p.k, [&](int64_t i, TopKEntry value) { entries[i] = value; });
  }
}

// Array `array` of `size` elements a row, from row `first` on.
template <class Pointer>
Pointer* from_row(Pointer* array, int64_t first, int64_t size) {
  return array == nullptr ? nullptr : array + first * size;
}
inline const void* from_row(const void* array, DType dtype, int64_t first, int64_t size) {
  return from_row(static_cast<const char*>(array), first, size * size_of(dtype));
}
inline void* from_row(void* array, DType dtype, int64_t first, int64_t size) {
  return from_row(static_cast<char*>(array), first, size * size_of(dtype));
}
inline IntArray from_row(const IntArray& array, int64_t first) {
  return {from_row(static_cast<const char*>(array.data), first, array.is_64 ? 8 : 4), array.is_64};
}

// Rows [first, first + count), whose launch fits.
BlockTopKParams rows_of(BlockTopKParams p, int64_t first, int64_t count) {
  p.scores = from_row(p.scores, p.dtype, first, p.row_stride);
  p.rows = count;
  p.lengths = from_row(p.lengths, first);
  p.entries = from_row(p.entries, first, p.parts * p.k);
  p.top_scores = from_row(p.top_scores, p.dtype, first, p.k);
  p.indices = from_row(p.indices, first, p.k);
  return p;
}
TopKMergeParams rows_of(TopKMergeParams p, int64_t first, int64_t count) {
  p.entries = from_row(p.entries, first, p.parts * p.k);
  p.rows = count;
  p.top_scores = from_row(p.top_scores, p.dtype, first, p.k);
  p.indices = from_row(p.indices, first, p.k);
  return p;
}
BlockTopKBackwardParams rows_of(BlockTopKBackwardParams p, int64_t first, int64_t count) {
  p.grad = from_row(p.grad, p.dtype, first, p.k);
  p.indices = from_row(p.indices, first, p.k);
  p.rows = count;
  p.out = from_row(p.out, p.dtype, first, p.columns);
  return p;
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
  cudaError_t error = cudaSuccess;
  const auto launch = [&](auto* kernel, const MergeLists& lists, auto* top_scores) {
    const SelectorPlan plan =
        plan_selector(int64_t{lists.group_lists} * p.k, p.k, sizeof(BlockSelector::Shared), device);
    if (error == cudaSuccess) error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    error = static_cast<cudaError_t>(
        for_each_portion(p.rows, lists.groups, [&](int64_t first, int64_t count) {
          const TopKMergeParams rows = rows_of(p, first, count);
          MergeLists of_rows = lists;
          of_rows.entries = rows.entries;
          kernel<<<grid_of(count * lists.groups), kSelectorThreads, plan.bytes(), stream>>>(
              of_rows, plan, static_cast<decltype(top_scores)>(rows.top_scores), rows.indices);
          return cudaGetLastError();
        }));
  };
  const unsigned parts = static_cast<unsigned>(p.parts), k = static_cast<unsigned>(p.k);
  MergeLists lists{p.entries, p.parts * p.k, parts, k, k, 1, parts};
  LONGCLOCK_WITH_DTYPE(p.dtype, T, {
    T* const top_scores = static_cast<T*>(p.top_scores);
    if (p.parts * p.k > kMostMerged) {  // as many groups as lists in each
      MergeLists grouped = lists;
      while (grouped.groups * grouped.groups < parts) ++grouped.groups;
      grouped.group_lists = (parts + grouped.groups - 1) / grouped.groups;
      grouped.groups = (parts + grouped.group_lists - 1) / grouped.group_lists;
      launch(topk_merge_kernel<T, false>, grouped, top_scores);
      lists.lists = lists.group_lists = grouped.groups;
      lists.stride = grouped.group_lists * k;
    }
    launch(topk_merge_kernel<T, true>, lists, top_scores);
  });
  return error;
}

int launch_block_topk(const BlockTopKParams& p, CudaStream stream) {
  if (p.rows == 0 || p.k == 0) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t longest = (p.columns + p.parts - 1) / p.parts;
  const SelectorPlan plan = plan_selector(longest, p.k, sizeof(BlockSelector::Shared), device);
  cudaError_t error = cudaSuccess;
  LONGCLOCK_WITH_DTYPE(p.dtype, T, {
    error = allow_all_shared(block_topk_kernel<T>, device);
    if (error != cudaSuccess) return error;
    error = static_cast<cudaError_t>(
        for_each_portion(p.rows, p.parts, [&](int64_t first, int64_t count) {
          block_topk_kernel<T>
              <<<grid_of(count * p.parts), kSelectorThreads, plan.bytes(), stream>>>(
                  rows_of(p, first, count), plan);
          return cudaGetLastError();
        }));
  });
  if (error != cudaSuccess || p.parts == 1) return error;
  return launch_topk_merge({p.dtype, p.entries, p.rows, p.parts, p.k, p.top_scores, p.indices},
                           stream);
}

int launch_block_topk_backward(const BlockTopKBackwardParams& p, CudaStream stream) {
  if (p.rows == 0 || p.columns == 0) return cudaSuccess;
  return for_each_portion(p.rows, 1, [&](int64_t first, int64_t count) {
    const BlockTopKBackwardParams rows = rows_of(p, first, count);
    LONGCLOCK_WITH_DTYPE(
        p.dtype, T,
        (block_topk_backward_kernel<T><<<grid_of(count), kSelectorThreads, 0, stream>>>(rows)));
    return cudaGetLastError();
  });
}

}  // namespace longclock
