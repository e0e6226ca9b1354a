// SPDX-License-Identifier: Apache-2.0
// The gradient of a table: zeros, and over them the sum of each row that was looked up. Positions
// are sorted by the row that they look up, stably, so a row is a run of them, in order; a warp adds
// up a part of a run (common/row_parts.cuh) for a panel of columns: of every position the queries
// that see it. Nothing of the size of the gathered keys is stored, and no atomics are needed.
#include "longclock/common/launch.cuh"
#include "longclock/common/row_parts.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/gsu_score/gsu_score_columns.cuh"
#include "longclock/gsu_score/gsu_score_windows.cuh"
#include "longclock/search/sequence_view.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 128;
constexpr int kBlockWarps = kBlockThreads / kWarp;

// Positions of the list whose runs are a warp's: as many as it has lanes where each is seen by one
// query at most, or one.
int warp_runs(const DeviceSearchParams& p) {
  const bool several = p.layout == SearchLayout::kWindows || p.query_offsets ||
                       (p.layout == SearchLayout::kDense && p.candidates != 1);
  return several ? 1 : kWarp;
}

// The queries that see a behaviour, and where the gradients of its scores lie.
struct Seen {
  int query, count;  // of them, from the first on; 0: none, or the behaviour is not valid
  int64_t at;        // of the first one's
  int64_t row;       // from a query's to the next one's
};

__device__ __forceinline__ Seen seen_of(const DeviceSearchParams& p, int64_t s, int64_t position) {
  const SequenceView view = view_sequence(p, s);
  const int64_t m = position - view.position;
  if (m < 0 || m >= view.length || !is_valid(p, view, static_cast<unsigned>(m))) return {};
  const QueryRange queries = queries_of(p, s);
  return {static_cast<int>(queries.begin), static_cast<int>(queries.end - queries.begin),
          scores_of(p, queries.begin, view) + m,
          p.layout == SearchLayout::kDense ? p.columns : int64_t{view.length}};
}

// What a lane adds up: its columns of a part.
template <class T, bool kAligned, bool kWindows>
class RowSum {
 public:
  __device__ RowSum(const DeviceGsuScoreBackwardParams& params, const RowParts& parts, int panel,
                    bool one_query)
      : params_(params),
        parts_(parts),
        column_(panel * kPanel + lane_index() * kLaneColumns),
        one_query_(one_query) {}

  // 32 positions of the list, one a lane, from `at` on.
  __device__ void read(int64_t at) {
    const DeviceSearchParams& p = params_.search;
    const int64_t mine = at + lane_index();
    row_ = mine < parts_.count ? parts_.lists.rows[mine] : parts_.table_rows;
    seen_ = {};
    if (row_ == parts_.table_rows) return;
    position_ = parts_.lists.positions[mine];
    if constexpr (kWindows) return;
    const int64_t s = p.layout == SearchLayout::kDense
                          ? position_ / p.columns
                          : find_range(p.offsets, p.sequences - 1, position_);
    seen_ = seen_of(p, s, position_);
    if (one_query_) weight_ = weight(seen_, 0);
  }
  // The row that a lane's position looks up.
  __device__ uint32_t row() const { return row_; }

  // Of the positions read from `at` on, those that belong to `row`, from lane `first` on; and what
  // follows them, as far as `end`. The positions read are others then.
  __device__ void add_part(int64_t at, int first, uint32_t row, int64_t end) {
    unsigned from = kAllLanes << first;
    for (;;) {
      const unsigned mine = from & __ballot_sync(kAllLanes, row_ == row && at + lane_index() < end);
      add_positions(mine);
      at += kWarp;
      if (mine >> (kWarp - 1) == 0 || at >= end) return;
      read(at);
      from = kAllLanes;
    }
  }

  // To a row of D of the table, or of a part.
  template <class Out>
  __device__ void store(Out* row) {
    store_columns<Out, kAligned>(row, column_, params_.search.behaviours.dim, 1.0f, acc_);
#pragma unroll
    for (float& sum : acc_) sum = 0.0f;
  }

 private:
  static constexpr int kAtOnce = 4;  // queries whose columns are in flight

  __device__ float weight(const Seen& seen, int64_t query) const {
    const int64_t at = seen.at + query * seen.row;
    const bool given = query < seen.count && at < params_.search.score_count;
    return given ? params_.search.scale * params_.grad[at] : 0.0f;
  }

  __device__ void add_positions(unsigned lanes) {
    if constexpr (kWindows) {
      for (; lanes != 0; lanes &= lanes - 1) {
        const int64_t position = __shfl_sync(kAllLanes, position_, __ffs(lanes) - 1);
        for_each_window(params_.windows, position, position + 1, [&](int64_t window) {
          add_queries(seen_of(params_.search, window, position));
        });
      }
    } else if (one_query_) {
      add(lanes & __ballot_sync(kAllLanes, seen_.count > 0), seen_.query, weight_);
    } else {
      for (; lanes != 0; lanes &= lanes - 1) {
        const int source = __ffs(lanes) - 1;
        add_queries({__shfl_sync(kAllLanes, seen_.query, source),
                     __shfl_sync(kAllLanes, seen_.count, source),
                     __shfl_sync(kAllLanes, seen_.at, source),
                     __shfl_sync(kAllLanes, seen_.row, source)});
      }
    }
  }

  // All queries of one position, 32 at a time.
  __device__ void add_queries(const Seen& seen) {
    for (int64_t first = 0; first < seen.count; first += kWarp) {
      const int64_t mine = first + lane_index();
      add(__ballot_sync(kAllLanes, mine < seen.count), static_cast<int>(seen.query + mine),
          weight(seen, mine));
    }
  }

  // The queries that these lanes have, in order.
  __device__ __forceinline__ void add(unsigned lanes, int query, float weight) {
    const DeviceSearchParams& p = params_.search;
#pragma unroll 1
    while (lanes != 0) {
      uint4 bits[kAtOnce];
      float weights[kAtOnce];
      const int some = __popc(lanes);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int source = lanes != 0 ? __ffs(lanes) - 1 : 0;
        lanes &= lanes - 1;
        weights[i] = __shfl_sync(kAllLanes, weight, source);
        const int64_t q = __shfl_sync(kAllLanes, query, source);
        bits[i] = query_bits<T, kAligned>(p, q, i < some ? column_ : p.behaviours.dim);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (i >= some) break;
        float values[kLaneColumns];
        query_values<T>(p, bits[i], values);
#pragma unroll
        for (int c = 0; c < kLaneColumns; ++c) acc_[c] = fmaf(weights[i], values[c], acc_[c]);
      }
    }
  }

  const DeviceGsuScoreBackwardParams& params_;
  const RowParts& parts_;
  const int64_t column_;
  const bool one_query_;
  uint32_t row_ = 0;
  int64_t position_ = 0;
  Seen seen_ = {};
  float weight_ = 0.0f;
  float acc_[kLaneColumns] = {};
};

// A warp a panel of columns and a slot of parts; then a panel and the runs that begin among `runs`
// positions of the list.
template <class T, bool kAligned, bool kWindows>
__global__ void __launch_bounds__(kBlockThreads, kAligned ? 5 : 4)
    table_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params,
                      const __grid_constant__ RowParts parts, int panels, int runs,
                      int64_t first_block) {
  const int64_t warp = (first_block + blockIdx.x) * kBlockWarps + warp_index();
  const int64_t task = warp / panels, slots = parts.slots();
  const int64_t dim = params.search.behaviours.dim;
  RowSum<T, kAligned, kWindows> sum(params, parts, static_cast<int>(warp % panels), runs > 1);
  if (task < slots) {
    const RowParts::Part part = parts.later_part(task);
    if (part.begin < 0) return;
    sum.read(part.begin);
    sum.add_part(part.begin, 0, part.row, min(part.begin + kRowPart, parts.count));
    sum.store(parts.later + task * dim);
    return;
  }
  const int64_t at = (task - slots) * runs;
  if (at >= parts.count) return;
  sum.read(at);
  const uint32_t row = sum.row();
  uint32_t before = __shfl_up_sync(kAllLanes, row, 1);
  if (lane_index() == 0) before = at == 0 ? parts.table_rows : parts.lists.rows[at - 1];
  const bool begins = row != parts.table_rows && lane_index() < runs && (row != before);
  for (unsigned heads = __ballot_sync(kAllLanes, begins); heads != 0; heads &= heads - 1) {
    const int lane = __ffs(heads) - 1;
    const uint32_t mine = __shfl_sync(kAllLanes, row, lane);
    const int64_t begin = at + lane;
    sum.add_part(at, lane, mine, min(begin + kRowPart, parts.count));
    if (parts.goes_on(begin, mine)) {
      sum.store(parts.first + begin / kRowPart * dim);
    } else {
      sum.store(static_cast<T*>(params.key_grad) + mine * dim);
    }
  }
}

RowLookups lookups(const DeviceSearchParams& p) {
  return {p.behaviours.ids, p.behaviours.mask, p.positions, p.table_rows};
}

}  // namespace

int gsu_score_table_grad_bytes(const DeviceGsuScoreBackwardParams& params, int64_t* bytes) {
  const DeviceSearchParams& p = params.search;
  Workspace workspace{nullptr};
  RowParts parts;
  const int error = launch_row_parts(lookups(p), p.behaviours.dim, &workspace, &parts, nullptr);
  *bytes = workspace.used;
  return error;
}

int launch_gsu_score_table_grad(const DeviceGsuScoreBackwardParams& params, void* memory,
                                CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  const Behaviours& b = p.behaviours;
  const int64_t bytes = p.table_rows * b.dim * size_of(b.dtype);
  if (bytes == 0) return cudaSuccess;
  const cudaError_t filled =
      cudaMemsetAsync(params.key_grad, 0, static_cast<size_t>(bytes), stream);
  if (filled != cudaSuccess || p.positions == 0 || p.sequences == 0) return filled;
  Workspace workspace{static_cast<char*>(memory)};
  RowParts parts;
  int error = launch_row_parts(lookups(p), b.dim, &workspace, &parts, stream);
  if (error != 0) return error;
  const int64_t panels = column_panels(p), runs = warp_runs(p);
  const int64_t warps = (parts.slots() + (p.positions + runs - 1) / runs) * panels;
  const auto launch = [&](auto* kernel) {
    error = for_each_part(
        (warps + kBlockWarps - 1) / kBlockWarps, 1, [&](int64_t first, int64_t count) {
          kernel<<<grid_of(count), kBlockThreads, 0, stream>>>(
              params, parts, static_cast<int>(panels), static_cast<int>(runs), first);
          return cudaGetLastError();
        });
  };
  const auto launch_aligned = [&]<class T, bool kAligned>() {
    p.layout == SearchLayout::kWindows ? launch(table_grad_kernel<T, kAligned, true>)
                                       : launch(table_grad_kernel<T, kAligned, false>);
  };
  const bool aligned =
      columns_are_aligned(p) && reinterpret_cast<uintptr_t>(params.key_grad) % 16 == 0;
  LONGCLOCK_WITH_DTYPE(b.dtype, T,
                       aligned ? launch_aligned.template operator()<T, true>()
                               : launch_aligned.template operator()<T, false>());
  return error != 0 ? error : launch_add_row_parts(parts, b.dtype, params.key_grad, stream);
}

}  // namespace longclock
