// SPDX-License-Identifier: Apache-2.0
// The gradient of a table: positions are sorted by the row that they look up, stably, so that each
// row's follow each other in order; then one warp a row adds them up. Nothing of the size of the
// gathered keys is stored, and no atomics are needed.
#include "longclock/common/launch.cuh"
#include "longclock/common/row_lists.h"
#include "longclock/common/vector16.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/sequence_view.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;
constexpr int kLaneColumns = 4;
constexpr int kPanel = kWarp * kLaneColumns;

// Where each row's positions begin: [N + 1].
__global__ void __launch_bounds__(kBlockThreads)
    row_begin_kernel(const uint32_t* __restrict__ sorted, int64_t positions, int64_t table_rows,
                     int64_t* __restrict__ begin) {
  for (int64_t row = grid_index(); row <= table_rows; row += grid_stride()) {
    int64_t low = 0, high = positions;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (sorted[middle] < row) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    begin[row] = low;
  }
}

template <class T>
struct RowSum {
  const DeviceGsuScoreBackwardParams& params;
  int64_t column;
  float acc[kLaneColumns] = {};

  __device__ void add(int64_t q, int64_t at) {
    const DeviceSearchParams& p = params.search;
    if (at >= p.score_count) return;
    const float w = p.scale * params.grad[at];
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) {
      if (column + c >= p.behaviours.dim) continue;
      const int64_t element = q * p.behaviours.dim + column + c;
      const float query = p.query_is_float
                              ? widen(narrow<T>(static_cast<const float*>(p.query)[element]))
                              : widen(static_cast<const T*>(p.query)[element]);
      acc[c] = fmaf(w, query, acc[c]);
    }
  }
};

// One warp a row of the table and a panel of columns. 32 positions at a time: each lane finds whose
// its position is, then all lanes add up one after the other. Of windows several may hold a
// position, so each is looked for in all of them.
template <class T, bool kWindows>
__global__ void __launch_bounds__(kBlockThreads, 4)
    table_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int panels,
                      const uint32_t* __restrict__ positions, const int64_t* __restrict__ begin,
                      int64_t first_block) {
  const DeviceSearchParams& p = params.search;
  const int64_t task = (first_block + blockIdx.x) * kBlockWarps + warp_index();
  const int64_t row = task / panels;
  if (row >= p.table_rows) return;
  RowSum<T> sum = {params, task % panels * kPanel + lane_index() * kLaneColumns};
  const int64_t end = begin[row + 1];
  for (int64_t first = begin[row]; first < end; first += kWarp) {
    const int64_t mine = first + lane_index();
    const int64_t position = mine < end ? int64_t{positions[mine]} : -1;
    if constexpr (kWindows) {
      for (int j = 0; j < kWarp; ++j) {
        const int64_t at = __shfl_sync(kAllLanes, position, j);
        if (at < 0) break;
        for (int64_t s = 0; s < p.sequences; s += kWarp) {
          bool valid = false;
          SequenceView view = {};
          if (s + lane_index() < p.sequences) {
            view = view_sequence(p, s + lane_index());
            valid = at >= view.position && at < view.position + view.length &&
                    is_valid(p, view, static_cast<unsigned>(at - view.position));
          }
          for (unsigned rest = __ballot_sync(kAllLanes, valid); rest != 0; rest &= rest - 1) {
            const int source = __ffs(rest) - 1;
            const int64_t window = __shfl_sync(kAllLanes, view.position, source);
            const QueryRange queries = queries_of(p, s + source);
            for (int64_t q = queries.begin; q < queries.end; ++q) {
              sum.add(q, p.score_begin[q] + at - window);
            }
          }
        }
      }
      continue;
    }
    int64_t s = 0, m = 0;
    bool valid = false;
    if (position >= 0) {
      s = p.layout == SearchLayout::kDense ? position / p.columns
                                           : find_range(p.offsets, p.sequences - 1, position);
      const SequenceView view = view_sequence(p, s);
      m = position - view.position;
      valid = m >= 0 && m < view.length && is_valid(p, view, static_cast<unsigned>(m));
    }
    for (unsigned rest = __ballot_sync(kAllLanes, valid); rest != 0; rest &= rest - 1) {
      const int source = __ffs(rest) - 1;
      const int64_t sequence = __shfl_sync(kAllLanes, s, source);
      const int64_t at = __shfl_sync(kAllLanes, m, source);
      const QueryRange queries = queries_of(p, sequence);
      const SequenceView view = view_sequence(p, sequence);
      for (int64_t q = queries.begin; q < queries.end; ++q) sum.add(q, scores_of(p, q, view) + at);
    }
  }
  T* const out = static_cast<T*>(params.key_grad) + row * p.behaviours.dim;
  for (int c = 0; c < kLaneColumns; ++c) {
    if (sum.column + c < p.behaviours.dim) out[sum.column + c] = narrow<T>(sum.acc[c]);
  }
}

int table_grad(const DeviceGsuScoreBackwardParams& params, void* memory, int64_t* bytes,
               CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  const Behaviours& b = p.behaviours;
  Workspace workspace{static_cast<char*>(memory)};
  int64_t* const begin = workspace.take<int64_t>(p.table_rows + 1);
  RowLists lists;
  const int listed =
      launch_row_lists({b.ids, b.mask, p.positions, p.table_rows}, &workspace, &lists, stream);
  if (bytes != nullptr) *bytes = workspace.used;
  if (listed != 0 || memory == nullptr) return listed;

  row_begin_kernel<<<grid_for(p.table_rows + 1, kBlockThreads), kBlockThreads, 0, stream>>>(
      lists.rows, p.positions, p.table_rows, begin);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  const int64_t panels = (b.dim + kPanel - 1) / kPanel;
  const int64_t blocks = (p.table_rows * panels + kBlockWarps - 1) / kBlockWarps;
  const bool windows = p.layout == SearchLayout::kWindows;
  return for_each_part(blocks, 1, [&](int64_t first, int64_t count) {
    LONGCLOCK_WITH_DTYPE(
        b.dtype, T,
        const auto kernel = windows ? table_grad_kernel<T, true> : table_grad_kernel<T, false>;
        kernel<<<grid_of(count), kBlockThreads, 0, stream>>>(params, static_cast<int>(panels),
                                                             lists.positions, begin, first));
    return cudaGetLastError();
  });
}

}  // namespace

int gsu_score_table_grad_bytes(const DeviceGsuScoreBackwardParams& params, int64_t* bytes) {
  return table_grad(params, nullptr, bytes, nullptr);
}

int launch_gsu_score_table_grad(const DeviceGsuScoreBackwardParams& params, void* workspace,
                                CudaStream stream) {
  return table_grad(params, workspace, nullptr, stream);
}

}  // namespace longclock
