// SPDX-License-Identifier: Apache-2.0
// The gradient of keys that are no table's: the queries that see a key, added up with the gradients
// of its scores as weights. What is written bounds it where a sequence has few queries,
// multiply-adds where it has many. Each element has one owner, which adds in a fixed order; there
// are no atomics, and neither the other sequences of a batch nor the number of blocks shows in a
// bit.
#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/gsu_score/gsu_score_columns.cuh"
#include "longclock/gsu_score/gsu_score_many_grad.h"
#include "longclock/gsu_score/gsu_score_windows.cuh"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 128;
constexpr int kBlockWarps = kBlockThreads / kWarp;
constexpr int kKeyRows = 4;  // positions of a warp
constexpr int kKeyBlockRows = kBlockWarps * kKeyRows;
constexpr int kKeyQueries = kWarp / kKeyRows;

// The positions of a warp; dense rows are not cut alike.
struct KeyRows {
  int64_t first, last;
};

__device__ __forceinline__ KeyRows key_rows_of(const DeviceSearchParams& p, int64_t block) {
  const bool dense = p.layout == SearchLayout::kDense;
  const int64_t row_blocks = (p.columns + kKeyBlockRows - 1) / kKeyBlockRows;
  const int64_t row = dense ? block / row_blocks : 0;
  const int64_t end = dense ? (row + 1) * p.columns : p.positions;
  const int64_t first =
      (dense ? row * p.columns + block % row_blocks * kKeyBlockRows : block * kKeyBlockRows) +
      warp_index() * kKeyRows;
  return {first, min(first + kKeyRows, end)};
}

// Calls f(sequence) for each that holds some of the rows, in a fixed order. All lanes.
template <bool kWindows, class F>
__device__ __forceinline__ void for_each_holding(const DeviceGsuScoreBackwardParams& params,
                                                 const KeyRows& rows, const F& f) {
  const DeviceSearchParams& p = params.search;
  if (rows.first >= rows.last || p.sequences == 0) return;
  if constexpr (kWindows) {
    for_each_window(params.windows, rows.first, rows.last, f);
  } else {
    const bool dense = p.layout == SearchLayout::kDense;
    const int64_t begin =
        dense ? rows.first / p.columns : find_range(p.offsets, p.sequences - 1, rows.first);
    const int64_t end =
        dense ? begin + 1 : find_range(p.offsets, p.sequences - 1, rows.last - 1) + 1;
    for (int64_t tile = begin; tile < end; tile += kWarp) {  // of which many may be empty
      bool holds = false;
      if (tile + lane_index() < end) {
        const SequenceView view = view_sequence(p, tile + lane_index());
        holds = view.position < rows.last && view.position + view.length > rows.first;
      }
      for (unsigned found = __ballot_sync(kAllLanes, holds); found != 0; found &= found - 1) {
        f(tile + __ffs(found) - 1);
      }
    }
  }
}

// What a lane adds up: its columns of the warp's positions.
template <class T, bool kAligned>
class KeySums {
 public:
  __device__ KeySums(const DeviceGsuScoreBackwardParams& params, const KeyRows& rows, int panel)
      : params_(params),
        first_(rows.first),
        last_(rows.last),
        column_(panel * kPanel + lane_index() * kLaneColumns) {}

  // The queries of sequence s in order, 8 at a time: of their gradients lane 4 j + i has query j,
  // position i of the warp's four.
  __device__ void add_sequence(int64_t s) {
    const DeviceSearchParams& p = params_.search;
    const SequenceView view = view_sequence(p, s);
    const int64_t position = first_ + lane_index() % kKeyRows, m = position - view.position;
    const bool valid = position < last_ && m >= 0 && m < view.length &&
                       is_valid(p, view, static_cast<unsigned>(m));
    const unsigned valid_rows = __ballot_sync(kAllLanes, valid);
    if (valid_rows == 0) return;
    const QueryRange queries = queries_of(p, s);
    const int64_t scores = scores_of(p, queries.begin, view) + m;
    const int64_t row_of_scores =
        p.layout == SearchLayout::kDense ? p.columns : int64_t{view.length};
    const auto gradient = [&](int64_t q) {
      const int64_t query = q + lane_index() / kKeyRows;
      const int64_t at = scores + (query - queries.begin) * row_of_scores;
      float grad = 0.0f;
      if (valid && query < queries.end && at < p.score_count) grad = __ldg(params_.grad + at);
      return grad;
    };
    float grads = gradient(queries.begin);
    for (int64_t q = queries.begin; q < queries.end; q += kKeyQueries) {
      const int some = static_cast<int>(min(int64_t{kKeyQueries}, queries.end - q));
      const float next = gradient(q + kKeyQueries);
#pragma unroll 1
      for (int half = 0; half < some; half += kAtOnce) {
        add_queries(q, half, some, grads, valid_rows);
      }
      grads = next;
    }
  }

  __device__ void store() const {
    const int64_t dim = params_.search.behaviours.dim;
    T* const out = static_cast<T*>(params_.key_grad);
#pragma unroll
    for (int row = 0; row < kKeyRows; ++row) {
      const int64_t position = first_ + row;
      if (position >= last_) continue;
      store_columns<T, kAligned>(out + position * dim, column_, dim, params_.search.scale,
                                 acc_[row]);
    }
  }

 private:
  static constexpr int kAtOnce = kKeyQueries / 2;  // queries whose columns are in flight

  // Of the `some` queries from q on, whose gradients the lanes hold, kAtOnce from `first` on.
  __device__ void add_queries(int64_t q, int first, int some, float grads, unsigned valid_rows) {
    const DeviceSearchParams& p = params_.search;
    uint4 bits[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const bool given = first + j < some;
      bits[j] = query_bits<T, kAligned>(p, q + first + j, given ? column_ : p.behaviours.dim);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (first + j >= some) break;
      float query[kLaneColumns];
      query_values<T>(p, bits[j], query);
#pragma unroll
      for (int row = 0; row < kKeyRows; ++row) {
        const float w = __shfl_sync(kAllLanes, grads, (first + j) * kKeyRows + row);
        if ((valid_rows >> row & 1) == 0) continue;
#pragma unroll
        for (int c = 0; c < kLaneColumns; ++c) acc_[row][c] = fmaf(w, query[c], acc_[row][c]);
      }
    }
  }

  const DeviceGsuScoreBackwardParams& params_;
  int64_t first_, last_, column_;
  float acc_[kKeyRows][kLaneColumns] = {};
};

// key_grad = scale * sum over queries of grad * query. A warp for 4 positions and a panel of
// columns: it looks for the sequences that hold some of them, and adds their queries in order.
// Writes every element.
template <class T, bool kAligned, bool kWindows>
__global__ void __launch_bounds__(kBlockThreads, kAligned ? 5 : 4)
    key_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int panels,
                    int64_t first_block) {
  const int panel = static_cast<int>(blockIdx.x % panels);
  const KeyRows rows = key_rows_of(params.search, first_block + blockIdx.x / panels);
  KeySums<T, kAligned> sums(params, rows, panel);
  for_each_holding<kWindows>(params, rows, [&](int64_t s) { sums.add_sequence(s); });
  sums.store();
}

}  // namespace

int launch_gsu_score_key_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  const int panels = static_cast<int>(column_panels(p));
  const auto blocks_of_keys = [](int64_t rows) {
    return (rows + kKeyBlockRows - 1) / kKeyBlockRows;
  };
  const int64_t key_blocks = p.layout == SearchLayout::kDense
                                 ? p.sequences * blocks_of_keys(p.columns)
                                 : blocks_of_keys(p.positions);
  if (key_blocks == 0 || panels == 0) return cudaSuccess;
  bool many = false;
  int error = plan_many_grad(p, &many);
  if (error != cudaSuccess) return error;
  if (many) return launch_many_key_grad(params, stream);
  const auto launch = [&](auto* kernel) {
    error = for_each_part(key_blocks, panels, [&](int64_t first, int64_t count) {
      kernel<<<grid_of(count * panels), kBlockThreads, 0, stream>>>(params, panels, first);
      return cudaGetLastError();
    });
  };
  const auto launch_aligned = [&]<class T, bool kAligned>() {
    p.layout == SearchLayout::kWindows ? launch(key_grad_kernel<T, kAligned, true>)
                                       : launch(key_grad_kernel<T, kAligned, false>);
  };
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T,
                       columns_are_aligned(p) ? launch_aligned.template operator()<T, true>()
                                              : launch_aligned.template operator()<T, false>());
  return error;
}

}  // namespace longclock
