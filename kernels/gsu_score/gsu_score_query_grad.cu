// SPDX-License-Identifier: Apache-2.0
// The gradient of the query: its keys, added up with the gradients of its scores as weights.
// Memory-bound: keys are read once for up to four queries that see the same ones. Each sum has one
// owner, which adds in a fixed order; there are no atomics, and neither the other sequences of a
// batch nor the number of blocks shows in a bit.
#include "longclock/common/device.h"
#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score_many_grad.h"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;
constexpr int kPanel = 128;     // columns of a block
constexpr int kSumBlock = 256;  // behaviours of a block of a sum: a tile a warp
constexpr int kRowLanes = 8;    // that read a row: a line of 128 bytes

// Element `at` of the gradient of the queries.
template <class T>
__device__ __forceinline__ void store_query_grad(const DeviceGsuScoreBackwardParams& params,
                                                 int64_t at, float value) {
  if (params.search.query_is_float) {
    static_cast<float*>(params.query_grad)[at] = value;
  } else {
    static_cast<T*>(params.query_grad)[at] = narrow<T>(value);
  }
}

// Groups of at most `size` queries: dense, of one sequence each; flat, whatever their sequences.
__host__ __device__ __forceinline__ int64_t groups_of_sequence(const DeviceSearchParams& p,
                                                               int size) {
  return (p.candidates + size - 1) / size;
}

inline int64_t query_groups(const DeviceSearchParams& p, int size) {
  return p.layout == SearchLayout::kDense ? p.sequences * groups_of_sequence(p, size)
                                          : (p.queries + size - 1) / size;
}

template <int kSize>
__device__ __forceinline__ QueryRange query_group(const DeviceSearchParams& p, int64_t group) {
  if constexpr (kSize == 1) return {group, group + 1};
  if (p.layout != SearchLayout::kDense) {
    return {group * kSize, min((group + 1) * kSize, p.queries)};
  }
  const int64_t groups = groups_of_sequence(p, kSize), s = group / groups;
  const int64_t begin = s * p.candidates + group % groups * kSize;
  return {begin, min(begin + kSize, (s + 1) * p.candidates)};
}

// Columns of a block that has this many queries: what its registers have room for.
__host__ __device__ constexpr int query_panel(int queries) {
  return queries == 1 ? kPanel : kPanel / 2;
}

// The queries of a group that see the keys of one sequence.
struct SequenceQueries {
  const SequenceView& view;
  int count;              // of the queries
  int64_t scores;         // of the first of them
  int64_t row_of_scores;  // from a query's scores to the next's
};

// What a lane adds up: of each query the columns of its pieces, over the rows of its kRowLanes. A
// request of a warp is four whole lines.
template <class T, bool kAligned, int kQueries>
class LaneSums {
 public:
  static constexpr int kColumns = query_panel(kQueries);

  __device__ LaneSums(const DeviceGsuScoreBackwardParams& params, int panel)
      : params_(params),
        row_of_request_(lane_index() / kRowLanes),
        first_column_(panel * kColumns + lane_index() % kRowLanes * kPiece) {}

  // The rows of 32 behaviours, `tile` the first.
  __device__ void add_tile(const SequenceQueries& queries, unsigned tile) {
    const DeviceSearchParams& p = params_.search;
    const Behaviours& b = p.behaviours;
    const unsigned m = tile + lane_index();
    const bool valid = m < queries.view.length && (!p.filtered || is_valid(p, queries.view, m));
    const unsigned valid_rows = __ballot_sync(kAllLanes, valid);
    if (valid_rows == 0) return;
    const char* row = row_after(p, queries.view.keys, m);
    bool known = true;
    if (b.ids) {
      const int64_t id = valid ? b.ids[queries.view.position + m] : 0;
      known = !valid || is_row(p, id);
      row = static_cast<const char*>(b.keys) + id * int64_t{p.row_bytes};
    }
    const unsigned readable = __ballot_sync(kAllLanes, valid && known);
    // Used only once the keys are on their way. A row that is not known makes NaN of its zeros.
    float weights[kQueries];
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      const int64_t at = queries.scores + i * queries.row_of_scores + m;
      const bool given = valid && i < queries.count && at < p.score_count;
      weights[i] = known ? 0.0f : NAN;
      if (given && known) weights[i] = __ldg(params_.grad + at);
    }
#pragma unroll 1
    for (int request = 0; request < kRequests; request += kAtOnce) {
      uint4 pieces[kAtOnce][kSteps];
      load_pieces(row, readable, request, pieces);
      add_pieces(weights, request, pieces);
    }
  }

  // Of query i the sums of the warp's rows, to sums [kColumns].
  __device__ void store(int i, float* sums) const {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int e = 0; e < kPiece; ++e) {
        float sum = acc_[i][step][e];
#pragma unroll
        for (int offset = kRowLanes; offset < kWarp; offset *= 2) {
          sum += __shfl_xor_sync(kAllLanes, sum, offset);
        }
        if (row_of_request_ == 0) sums[lane_index() * kPiece + step * kStep + e] = sum;
      }
    }
  }

 private:
  static constexpr int kPiece = kVector16<T>, kStep = kRowLanes * kPiece, kSteps = kColumns / kStep;
  static constexpr int kRows = kWarp / kRowLanes;  // of a request
  static constexpr int kRequests = kWarpRows / kRows;
  static constexpr int kAtOnce = kAligned ? (kQueries == 1 ? 8 : 4) / kSteps : 1;

  // The pieces of kAtOnce requests; row: of the lane's behaviour, readable: of which lanes it is.
  __device__ void load_pieces(const char* row, unsigned readable, int request,
                              uint4 (&pieces)[kAtOnce][kSteps]) const {
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      const int source = (request + r) * kRows + row_of_request_;
      const T* keys = reinterpret_cast<const T*>(
          __shfl_sync(kAllLanes, reinterpret_cast<uintptr_t>(row), source));
      const int64_t columns = readable >> source & 1 ? params_.search.behaviours.dim : 0;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        pieces[r][step] = load16<T, kAligned>(keys, first_column_ + step * kStep, columns);
      }
    }
  }

  __device__ void add_pieces(const float (&weights)[kQueries], int request,
                             const uint4 (&pieces)[kAtOnce][kSteps]) {
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      const int source = (request + r) * kRows + row_of_request_;
      float w[kQueries];
#pragma unroll
      for (int i = 0; i < kQueries; ++i) w[i] = __shfl_sync(kAllLanes, weights[i], source);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        float key[kPiece];
        widen16<T>(pieces[r][step], key);
#pragma unroll
        for (int i = 0; i < kQueries; ++i) {
#pragma unroll
          for (int e = 0; e < kPiece; ++e) acc_[i][step][e] = fmaf(w[i], key[e], acc_[i][step][e]);
        }
      }
    }
  }

  const DeviceGsuScoreBackwardParams& params_;
  int row_of_request_, first_column_;
  float acc_[kQueries][kSteps][kPiece] = {};
};

// query_grad = scale * sum over behaviours of grad * key, as sums that are added in order, each
// of them every kGradSums-th block. One block for kQueries queries that see the same keys, a panel
// of columns and a share of the sums.
template <class T, bool kAligned, int kQueries>
__global__ void __launch_bounds__(kBlockThreads, 2)
    query_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int panels,
                      unsigned first_group) {
  using Sums = LaneSums<T, kAligned, kQueries>;
  __shared__ float sums[kBlockWarps][Sums::kColumns];
  const DeviceSearchParams& p = params.search;
  const int64_t dim = p.behaviours.dim;
  const int panel = static_cast<int>(blockIdx.x % panels);
  const int part = static_cast<int>(blockIdx.x / panels % params.parts);
  const int64_t group = first_group + blockIdx.x / panels / params.parts;
  const QueryRange all = query_group<kQueries>(p, group);
  const int64_t column = panel * Sums::kColumns + threadIdx.x;
  const bool owner = threadIdx.x < Sums::kColumns && column < dim;

  int64_t q = all.begin;
  while (q < all.end) {
    const int64_t s = sequence_of(p, q);
    const int64_t rest = min(owned_queries(p, s).end, all.end) - q;
    const int count = kQueries == 1 ? 1 : static_cast<int>(rest);
    const SequenceView view = view_sequence(p, s);
    const unsigned length = view.length;
    const SequenceQueries queries{view, count, scores_of(p, q, view),
                                  p.layout == SearchLayout::kDense ? p.columns : length};
    float totals[kQueries] = {};
    for (int sum_index = part; sum_index < params.sums; sum_index += params.parts) {
      const auto partial = [&](int i) {
        return params.query_partial + ((q + i) * params.sums + sum_index) * dim + column;
      };
      if (static_cast<unsigned>(sum_index) * kSumBlock >= length) {
        if (params.parts == 1) break;
        for (int i = 0; owner && i < count; ++i) *partial(i) = 0.0f;
        continue;
      }
      Sums of_lane(params, panel);
      for (unsigned tile = sum_index * kSumBlock + warp_index() * kWarpRows; tile < length;
           tile += kGradSums * kSumBlock) {
        of_lane.add_tile(queries, tile);
      }
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        of_lane.store(i, sums[warp_index()]);
        __syncthreads();
        if (owner && i < count) {
          float sum = 0.0f;
          for (int w = 0; w < kBlockWarps; ++w) sum += sums[w][threadIdx.x];
          sum *= p.scale;
          totals[i] += sum;
          if (params.parts > 1) *partial(i) = sum;
        }
        __syncthreads();
      }
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      if (owner && i < count && params.parts == 1) {
        store_query_grad<T>(params, (q + i) * dim + column, totals[i]);
      }
    }
    q += count;
  }
}

// Adds the sums in order.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    query_grad_reduce_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params) {
  const int64_t dim = params.search.behaviours.dim, count = params.search.queries * dim;
  for (int64_t i = grid_index(); i < count; i += grid_stride()) {
    const float* partial = params.query_partial + i / dim * params.sums * dim + i % dim;
    float total = 0.0f;
#pragma unroll 8
    for (int sum_index = 0; sum_index < params.sums; ++sum_index) total += partial[sum_index * dim];
    store_query_grad<T>(params, i, total);
  }
}

int panels_of(const DeviceSearchParams& p, int columns) {
  return static_cast<int>((p.behaviours.dim + columns - 1) / columns);
}

// Queries of a block of query_grad_kernel: several only where they can see the same keys.
constexpr int kTogether = 4;
int queries_together(const DeviceSearchParams& p) {
  return p.queries > p.sequences ? kTogether : 1;
}

// The gradient, or its sums where there are several.
int launch_sums(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  const int together = queries_together(p), panels = panels_of(p, query_panel(together));
  const int64_t group_blocks = int64_t{params.parts} * panels;
  const bool aligned = search_is_aligned(p);
  int error = cudaSuccess;
  const auto launch = [&](auto* one, auto* several) {
    auto* const kernel = together == 1 ? one : several;
    // Groups are no more than queries and sequences, each fewer than 2^31: 32 bits hold them.
    error =
        for_each_part(query_groups(p, together), group_blocks, [&](int64_t first, int64_t count) {
          kernel<<<grid_of(count * group_blocks), kBlockThreads, 0, stream>>>(
              params, panels, static_cast<unsigned>(first));
          return cudaGetLastError();
        });
  };
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, {
    if (aligned) {
      launch(query_grad_kernel<T, true, 1>, query_grad_kernel<T, true, kTogether>);
    } else {
      launch(query_grad_kernel<T, false, 1>, query_grad_kernel<T, false, kTogether>);
    }
  });
  return error;
}

}  // namespace

int gsu_score_query_sums(const DeviceSearchParams& p, int* sums, int* parts) {
  bool many = false;
  if (const int error = plan_many_grad(p, &many)) return error;
  if (many) return many_query_grad_sums(p, sums, parts);
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t longest = p.longest();
  const int64_t sum_blocks = max((longest + kSumBlock - 1) / kSumBlock, int64_t{1});
  *sums = static_cast<int>(min(sum_blocks, int64_t{kGradSums}));
  const int together = queries_together(p);
  const int64_t blocks =
      max(query_groups(p, together) * panels_of(p, query_panel(together)), int64_t{1});
  const int64_t wanted = (8 * device.multiprocessors + blocks - 1) / blocks;
  *parts = static_cast<int>(min(wanted, int64_t{*sums}));
  return cudaSuccess;
}

int launch_gsu_score_query_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  if (p.queries == 0 || p.behaviours.dim == 0) return cudaSuccess;
  bool many = false;
  int error = plan_many_grad(p, &many);
  if (error == 0) error = (many ? launch_many_query_grad : launch_sums)(params, stream);
  if (error != 0 || params.parts == 1) return error;
  const unsigned grid = grid_for(p.queries * p.behaviours.dim, kBlockThreads);
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T,
                       (query_grad_reduce_kernel<T><<<grid, kBlockThreads, 0, stream>>>(params)));
  return cudaGetLastError();
}

}  // namespace longclock
