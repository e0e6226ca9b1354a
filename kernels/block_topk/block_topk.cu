// SPDX-License-Identifier: Apache-2.0
// One warp a row of up to 2,048 scores; of up to 10,240 one block, a TeamSelector. Longer rows, and
// more than 128 of a row, go in tiles through a BlockSelector. Where there are fewer rows than
// multiprocessors a long row is cut into parts, whose best are merged by a second launch.
#include <cstring>
#include <type_traits>

#include "longclock/block_topk/block_topk.h"
#include "longclock/common/launch.cuh"
#include "longclock/common/row_ranges.cuh"
#include "longclock/common/vector16.cuh"
#include "longclock/selection/block_selector.cuh"
#include "longclock/selection/team_selector.cuh"
#include "longclock/selection/topk_merge.h"

namespace longclock {
namespace {

// Scores of a row.
__device__ __forceinline__ int64_t length_of_row(const BlockTopKParams& p, int64_t row) {
  if (!p.lengths) return p.columns;
  const int64_t given = p.lengths[row];
  if (p.check)
    device_check(given >= 0 && given <= p.columns, "lengths must be from 0 to M", "block_topk");
  return min(max(given, int64_t{0}), p.columns);
}

// Of n scores, 4 i to 4 i + 3 as a WarpSelector takes them.
template <class T>
class ScoresInFours {
 public:
  __device__ ScoresInFours(const T* scores, int n)
      : scores_(scores), n_(n), aligned_(reinterpret_cast<uintptr_t>(scores) % kBytes == 0) {}

  __device__ uint4 operator()(int i) const {
    T four[4];
    if (aligned_ && 4 * i + 4 <= n_) {
      using Bits = std::conditional_t<sizeof(T) == 4, uint4, uint2>;
      const Bits bits = reinterpret_cast<const Bits*>(scores_)[i];
      memcpy(four, &bits, kBytes);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (4 * i + j < n_) four[j] = scores_[4 * i + j];
      }
    }
    uint32_t ordered[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) ordered[j] = 4 * i + j < n_ ? ordered_score(widen(four[j])) : 0;
    return make_uint4(ordered[0], ordered[1], ordered[2], ordered[3]);
  }

 private:
  static constexpr int kBytes = 4 * static_cast<int>(sizeof(T));
  const T* scores_;
  int n_;
  bool aligned_;
};

template <class T>
__global__ void __launch_bounds__(kWarpSelectorThreads)
    block_topk_by_warp_kernel(const BlockTopKParams p) {
  using Selector = WarpSelector<kMaxWarpScores / (4 * kWarp)>;
  __shared__ Selector::Shared shared[kWarpSelectorWarps];
  const int64_t row = int64_t{blockIdx.x} * kWarpSelectorWarps + warp_index();
  if (row >= p.rows) return;
  const T* const scores = static_cast<const T*>(p.scores) + row * p.row_stride;
  const int n = static_cast<int>(length_of_row(p, row)), k = static_cast<int>(p.k);
  Selector best(shared + warp_index(), k, n, ScoresInFours<T>(scores, n));
  best.take(best.bound());
  best.write_sorted(static_cast<T*>(p.top_scores) + row * p.k, p.indices + row * p.k,
                    [](int at) { return at; });
}

// Scores of part `part` of a row: [begin, end), which begin where rows do with respect to pieces of
// 16 bytes.
template <class T>
__device__ __forceinline__ void find_part(const BlockTopKParams& p, int64_t length, int64_t part,
                                          int64_t* begin, int64_t* end) {
  constexpr int kPiece = kVector16<T>;
  const int64_t step = ((length + p.parts - 1) / p.parts + kPiece - 1) / kPiece * kPiece;
  *begin = min(length, part * step);
  *end = min(length, *begin + step);
}

template <class T>
__global__ void __launch_bounds__(kTeamThreads, kTeamBlocks)
    block_topk_by_team_kernel(const BlockTopKParams p) {
  using Selector = TeamSelector<Places::kFours>;
  __shared__ Selector::Shared shared;
  const int64_t row = blockIdx.x / p.parts, part = blockIdx.x % p.parts;
  int64_t begin, end;
  find_part<T>(p, length_of_row(p, row), part, &begin, &end);
  const T* const scores = static_cast<const T*>(p.scores) + row * p.row_stride + begin;
  const int n = static_cast<int>(end - begin), k = static_cast<int>(p.k);
  Selector::select(&shared, k, n, ScoresInFours<T>(scores, n), [&](auto& best, const auto& place) {
    const auto index_of = [&](int at) { return begin + place(at); };
    if (p.parts > 1) {
      write_entries(best, p.entries + blockIdx.x * p.k, index_of);
    } else {
      best.write_sorted(static_cast<T*>(p.top_scores) + row * p.k, p.indices + row * p.k, index_of);
    }
  });
}

template <class T>
__global__ void __launch_bounds__(kSelectorThreads)
    block_topk_kernel(const BlockTopKParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x / p.parts, part = blockIdx.x % p.parts;
  const T* scores = static_cast<const T*>(p.scores) + row * p.row_stride;
  constexpr int kPiece = kVector16<T>;
  int64_t begin, end;
  find_part<T>(p, length_of_row(p, row), part, &begin, &end);
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
BlockTopKBackwardParams rows_of(BlockTopKBackwardParams p, int64_t first, int64_t count) {
  p.grad = from_row(p.grad, p.dtype, first, p.k);
  p.indices = from_row(p.indices, first, p.k);
  p.rows = count;
  p.out = from_row(p.out, p.dtype, first, p.columns);
  return p;
}

// A part of a row: zeros, 16 bytes a store, then those of the gradients whose indices, which
// differ, lie in it. What is written bounds it.
template <class T>
constexpr int kGradColumns = 16384 / static_cast<int>(sizeof(T));  // of a part

template <class T>
__global__ void __launch_bounds__(kSelectorThreads)
    block_topk_backward_kernel(const BlockTopKBackwardParams p, unsigned parts) {
  const int64_t row = blockIdx.x / parts;
  const int64_t begin = int64_t{blockIdx.x % parts} * kGradColumns<T>;
  const int count = static_cast<int>(min(p.columns - begin, int64_t{kGradColumns<T>}));
  T* const out = static_cast<T*>(p.out) + row * p.columns + begin;
  constexpr int kPiece = kVector16<T>;
  const int before = static_cast<int>(-reinterpret_cast<uintptr_t>(out) % 16 / sizeof(T));
  const int first = min(before, count), pieces = (count - first) / kPiece;
  for (int i = threadIdx.x; i < pieces; i += kSelectorThreads) {
    reinterpret_cast<uint4*>(out + first)[i] = make_uint4(0, 0, 0, 0);
  }
  if (static_cast<int>(threadIdx.x) < first) out[threadIdx.x] = T{};
  const int rest = first + pieces * kPiece + threadIdx.x;
  if (rest < count) out[rest] = T{};
  __syncthreads();
  const T* const grad = static_cast<const T*>(p.grad) + row * p.k;
  const int64_t* const indices = p.indices + row * p.k;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < p.k; i += kSelectorThreads) {
    const int64_t index = indices[i];
    if (index >= begin && index < begin + count) out[index - begin] = grad[i];
  }
}

// Long rows, or the best of their parts, by a team.
int launch_by_team(const BlockTopKParams& p, CudaStream stream) {
  return for_each_part(p.rows, p.parts, [&](int64_t first, int64_t count) {
    const BlockTopKParams rows = rows_of(p, first, count);
    const unsigned blocks = grid_of(count * p.parts);
    LONGCLOCK_WITH_DTYPE(p.dtype, T,
                         (block_topk_by_team_kernel<T><<<blocks, kTeamThreads, 0, stream>>>(rows)));
    return cudaGetLastError();
  });
}

// The same by a BlockSelector.
int launch_by_block(const BlockTopKParams& p, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t longest = (p.columns + p.parts - 1) / p.parts;
  const SelectorPlan plan = plan_selector(longest, p.k, sizeof(BlockSelector::Shared), device);
  LONGCLOCK_WITH_DTYPE(p.dtype, T, {
    if (const int error = allow_all_shared(block_topk_kernel<T>, device)) return error;
    return for_each_part(p.rows, p.parts, [&](int64_t first, int64_t count) {
      block_topk_kernel<T><<<grid_of(count * p.parts), kSelectorThreads, plan.bytes(), stream>>>(
          rows_of(p, first, count), plan);
      return cudaGetLastError();
    });
  });
  return cudaSuccess;
}

}  // namespace

int launch_block_topk(const BlockTopKParams& p, CudaStream stream) {
  if (p.rows == 0 || p.k == 0) return cudaSuccess;
  if (p.k <= kMaxWarpK && p.columns <= kMaxWarpScores && p.parts == 1) {
    return for_each_part(p.rows, 1, [&](int64_t first, int64_t count) {
      const unsigned blocks = grid_of((count + kWarpSelectorWarps - 1) / kWarpSelectorWarps);
      const BlockTopKParams rows = rows_of(p, first, count);
      LONGCLOCK_WITH_DTYPE(
          p.dtype, T,
          (block_topk_by_warp_kernel<T><<<blocks, kWarpSelectorThreads, 0, stream>>>(rows)));
      return cudaGetLastError();
    });
  }
  const int error =
      suits_team(p.columns, p.parts, p.k) ? launch_by_team(p, stream) : launch_by_block(p, stream);
  if (error != cudaSuccess || p.parts == 1) return error;
  return launch_topk_merge({p.dtype, p.entries, p.rows, p.parts, p.k, p.top_scores, p.indices},
                           stream);
}

int launch_block_topk_backward(const BlockTopKBackwardParams& p, CudaStream stream) {
  if (p.rows == 0 || p.columns == 0) return cudaSuccess;
  int error = cudaSuccess;
  LONGCLOCK_WITH_DTYPE(p.dtype, T, {
    const int64_t parts = (p.columns + kGradColumns<T> - 1) / kGradColumns<T>;
    error = for_each_part(p.rows, parts, [&](int64_t first, int64_t count) {
      block_topk_backward_kernel<T><<<grid_of(count * parts), kSelectorThreads, 0, stream>>>(
          rows_of(p, first, count), static_cast<unsigned>(parts));
      return cudaGetLastError();
    });
  });
  return error;
}

}  // namespace longclock
