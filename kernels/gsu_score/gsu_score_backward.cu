// SPDX-License-Identifier: Apache-2.0
// The gradients of the query, the keys and the time term. Each output has one owner, which adds in
// a fixed order; there are no atomics, and neither the other sequences of a batch nor the number of
// blocks shows in a bit.
#include "longclock/common/device.h"
#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;
constexpr int kPanel = 128;     // columns of a block
constexpr int kRowLanes = 8;    // that read a row: a line of 128 bytes
constexpr int kSumBlock = 256;  // behaviours: a tile a warp
constexpr int kSums = 32;       // sums of a query's gradient; block i belongs to i % kSums
constexpr int kKeyRows = 4;     // positions of a warp
constexpr int kKeyBlockRows = kBlockWarps * kKeyRows;
constexpr int kLaneColumns = kPanel / kWarp;
constexpr int kKeyQueries = kWarp / kKeyRows;
constexpr int kQuerySums = 8;  // sums of a behaviour's gradient of s

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

// query_grad = scale * sum over behaviours of grad * key, as sums that are added in order, each
// of them every kSums-th block. One block for kQueries queries that see the same keys, a panel
// of columns and a share of the sums; a lane adds up the columns of its pieces over the rows of
// its kRowLanes. A request of a warp is four whole lines.
template <class T, bool kAligned, int kQueries>
__global__ void __launch_bounds__(kBlockThreads, 2)
    query_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int panels,
                      unsigned first_group) {
  constexpr int kColumns = query_panel(kQueries);
  constexpr int kPiece = kVector16<T>, kStep = kRowLanes * kPiece, kSteps = kColumns / kStep;
  constexpr int kRows = kWarp / kRowLanes;  // of a request
  constexpr int kRequests = kWarpRows / kRows,
                kAtOnce = kAligned ? (kQueries == 1 ? 8 : 4) / kSteps : 1;
  __shared__ float sums[kBlockWarps][kColumns];
  const DeviceSearchParams& p = params.search;
  const Behaviours& b = p.behaviours;
  const int panel = static_cast<int>(blockIdx.x % panels);
  const int part = static_cast<int>(blockIdx.x / panels % params.parts);
  const int64_t group = first_group + blockIdx.x / panels / params.parts;
  const QueryRange queries = query_group<kQueries>(p, group);
  const int row_of_request = lane_index() / kRowLanes;
  const int first_column = panel * kColumns + lane_index() % kRowLanes * kPiece;
  const int64_t column = panel * kColumns + threadIdx.x;
  const bool owner = threadIdx.x < kColumns && column < b.dim;

  int64_t q = queries.begin;
  while (q < queries.end) {
    const int64_t s = sequence_of(p, q);
    const int64_t rest = max(min(queries_of(p, s).end, queries.end) - q, int64_t{1});
    const int count = kQueries == 1 ? 1 : static_cast<int>(rest);
    const SequenceView view = view_sequence(p, s);
    const unsigned length = view.length;
    const int64_t scores = scores_of(p, q, view);
    const int64_t row_of_scores = p.layout == SearchLayout::kDense ? p.columns : length;
    float totals[kQueries] = {};
    for (int sum_index = part; sum_index < params.sums; sum_index += params.parts) {
      if (static_cast<unsigned>(sum_index) * kSumBlock >= length) {
        if (params.parts == 1) break;
        for (int i = 0; owner && i < count; ++i) {
          params.query_partial[((q + i) * params.sums + sum_index) * b.dim + column] = 0.0f;
        }
        continue;
      }
      float acc[kQueries][kSteps][kPiece] = {};
      for (unsigned tile = sum_index * kSumBlock + warp_index() * kWarpRows; tile < length;
           tile += kSums * kSumBlock) {
        const unsigned m = tile + lane_index();
        const bool valid = m < length && (!p.filtered || is_valid(p, view, m));
        const unsigned valid_rows = __ballot_sync(kAllLanes, valid);
        if (valid_rows == 0) continue;
        const char* row = row_after(p, view.keys, m);
        bool known = true;
        if (b.ids) {
          const int64_t id = valid ? b.ids[view.position + m] : 0;
          known = !valid || is_row(p, id);
          row = static_cast<const char*>(b.keys) + id * int64_t{p.row_bytes};
        }
        const unsigned readable = __ballot_sync(kAllLanes, valid && known);
        // Used only once the keys are on their way. A row that is not known makes NaN of its zeros.
        float weights[kQueries];
#pragma unroll
        for (int i = 0; i < kQueries; ++i) {
          const int64_t at = scores + i * row_of_scores + m;
          const bool given = valid && i < count && at < p.score_count;
          weights[i] = known ? 0.0f : NAN;
          if (given && known) weights[i] = __ldg(params.grad + at);
        }
#pragma unroll 1
        for (int request = 0; request < kRequests; request += kAtOnce) {
          uint4 pieces[kAtOnce][kSteps];
#pragma unroll
          for (int r = 0; r < kAtOnce; ++r) {
            const int source = (request + r) * kRows + row_of_request;
            const T* keys = reinterpret_cast<const T*>(
                __shfl_sync(kAllLanes, reinterpret_cast<uintptr_t>(row), source));
            const int64_t columns = readable >> source & 1 ? b.dim : 0;
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
              pieces[r][step] = load16<T, kAligned>(keys, first_column + step * kStep, columns);
            }
          }
#pragma unroll
          for (int r = 0; r < kAtOnce; ++r) {
            const int source = (request + r) * kRows + row_of_request;
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
                for (int e = 0; e < kPiece; ++e) {
                  acc[i][step][e] = fmaf(w[i], key[e], acc[i][step][e]);
                }
              }
            }
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
#pragma unroll
          for (int e = 0; e < kPiece; ++e) {
            float sum = acc[i][step][e];
#pragma unroll
            for (int offset = kRowLanes; offset < kWarp; offset *= 2) {
              sum += __shfl_xor_sync(kAllLanes, sum, offset);
            }
            if (row_of_request == 0) {
              sums[warp_index()][lane_index() * kPiece + step * kStep + e] = sum;
            }
          }
        }
        __syncthreads();
        if (owner && i < count) {
          float sum = 0.0f;
          for (int w = 0; w < kBlockWarps; ++w) sum += sums[w][threadIdx.x];
          sum *= p.scale;
          totals[i] += sum;
          if (params.parts > 1) {
            params.query_partial[((q + i) * params.sums + sum_index) * b.dim + column] = sum;
          }
        }
        __syncthreads();
      }
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      if (owner && i < count && params.parts == 1) {
        store_query_grad<T>(params, (q + i) * b.dim + column, totals[i]);
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

// Columns [d, d + 4) of query q as they lie: fp32 or 16 bits. kAligned: D is a multiple of 4, and
// the query of what one load takes.
template <class T, bool kAligned>
__device__ __forceinline__ uint4 query_bits(const DeviceSearchParams& p, int64_t q, int64_t d) {
  const int64_t dim = p.behaviours.dim;
  if (sizeof(T) == 4 || p.query_is_float) {
    return load16<float, kAligned>(static_cast<const float*>(p.query) + q * dim, d, dim);
  }
  const T* row = static_cast<const T*>(p.query) + q * dim;
  if constexpr (!kAligned) return load16<T, false>(row, d, min(d + kLaneColumns, dim));
  const uint2 bits = d < dim ? __ldg(reinterpret_cast<const uint2*>(row + d)) : make_uint2(0, 0);
  return make_uint4(bits.x, bits.y, 0, 0);
}

// And their values, rounded to T.
template <class T>
__device__ __forceinline__ void query_values(const DeviceSearchParams& p, const uint4& bits,
                                             float (&out)[kLaneColumns]) {
  float values[kVector16<T>], floats[kLaneColumns];
  widen16<T>(bits, values);
  widen16<float>(bits, floats);
#pragma unroll
  for (int c = 0; c < kLaneColumns; ++c) {
    out[c] = p.query_is_float ? widen(narrow<T>(floats[c])) : values[c];
  }
}

// Writes columns [d, d + 4) of a row of D; see query_bits.
template <class T, bool kAligned>
__device__ __forceinline__ void store_columns(T* row, int64_t d, int64_t dim, float scale,
                                              const float (&values)[kLaneColumns]) {
  if constexpr (kAligned) {
    if (d >= dim) return;
    float scaled[kVector16<T>] = {};
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) scaled[c] = scale * values[c];
    const uint4 bits = narrow16<T>(scaled);
    if constexpr (sizeof(T) == 4) {
      *reinterpret_cast<uint4*>(row + d) = bits;
    } else {
      *reinterpret_cast<uint2*>(row + d) = make_uint2(bits.x, bits.y);
    }
  } else {
    for (int c = 0; c < kLaneColumns; ++c) {
      if (d + c < dim) row[d + c] = narrow<T>(scale * values[c]);
    }
  }
}

// key_grad = scale * sum over queries of grad * query. One block for 32 positions and a panel of
// columns: it looks for the sequences that hold some of them, 256 at a time, and adds their queries
// in order, 8 at a time: of their gradients lane 4 j + i has query j, position i of the warp's
// four. Writes every element.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kBlockThreads, kAligned ? kTileBlocks : 2)
    key_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int panels,
                    int64_t first_block) {
  constexpr int kAtOnce = kKeyQueries / 2;  // queries whose columns are in flight
  __shared__ int64_t found[kBlockThreads];
  __shared__ int warp_found[kBlockWarps];
  const DeviceSearchParams& p = params.search;
  const Behaviours& b = p.behaviours;
  const int panel = static_cast<int>(blockIdx.x % panels);
  const int64_t key_block = first_block + blockIdx.x / panels;
  const bool dense = p.layout == SearchLayout::kDense;
  const int64_t row_blocks = (p.columns + kKeyBlockRows - 1) / kKeyBlockRows;
  const int64_t row = dense ? key_block / row_blocks : 0;
  const int64_t first =
      dense ? row * p.columns + key_block % row_blocks * kKeyBlockRows : key_block * kKeyBlockRows;
  const int64_t last = min(first + kKeyBlockRows, dense ? (row + 1) * p.columns : p.positions);
  int64_t s_begin = 0, s_end = p.sequences;
  if (dense) {
    s_begin = row;
    s_end = row + 1;
  } else if (p.layout == SearchLayout::kRagged && p.sequences > 0) {
    s_begin = find_range(p.offsets, p.sequences - 1, first);
    s_end = find_range(p.offsets, p.sequences - 1, last - 1) + 1;
  }
  const int64_t column = panel * kPanel + lane_index() * kLaneColumns;
  const int64_t warp_first = first + warp_index() * kKeyRows;
  float acc[kKeyRows][kLaneColumns] = {};
  for (int64_t tile = s_begin; tile < s_end; tile += kBlockThreads) {
    const int64_t mine = tile + threadIdx.x;
    bool holds = false;
    if (mine < s_end) {
      const SequenceView view = view_sequence(p, mine);
      holds = view.position < last && view.position + view.length > first;
    }
    const unsigned holding = __ballot_sync(kAllLanes, holds);
    if (lane_index() == 0) warp_found[warp_index()] = __popc(holding);
    __syncthreads();
    int before = 0, count = 0;
    for (int w = 0; w < kBlockWarps; ++w) {
      if (w < warp_index()) before += warp_found[w];
      count += warp_found[w];
    }
    if (holds) found[before + __popc(holding & ((1u << lane_index()) - 1))] = mine;
    __syncthreads();
    for (int index = 0; index < count; ++index) {
      const int64_t s = found[index];
      const SequenceView view = view_sequence(p, s);
      const int i = lane_index() % kKeyRows;
      const int64_t position = warp_first + i, m = position - view.position;
      const bool valid = position < last && m >= 0 && m < view.length &&
                         is_valid(p, view, static_cast<unsigned>(m));
      const unsigned valid_rows = __ballot_sync(kAllLanes, valid);
      if (valid_rows == 0) continue;
      const QueryRange queries = queries_of(p, s);
      const int64_t scores = scores_of(p, queries.begin, view) + m;
      const int64_t row_of_scores = dense ? p.columns : int64_t{view.length};
      const auto gradient = [&](int64_t q) {
        const int64_t query = q + lane_index() / kKeyRows;
        const int64_t at = scores + (query - queries.begin) * row_of_scores;
        float grad = 0.0f;
        if (valid && query < queries.end && at < p.score_count) grad = __ldg(params.grad + at);
        return grad;
      };
      float grads = gradient(queries.begin);
      for (int64_t q = queries.begin; q < queries.end; q += kKeyQueries) {
        const int some = static_cast<int>(min(int64_t{kKeyQueries}, queries.end - q));
        const float next = gradient(q + kKeyQueries);
#pragma unroll 1
        for (int half = 0; half < some; half += kAtOnce) {
          uint4 bits[kAtOnce];
#pragma unroll
          for (int j = 0; j < kAtOnce; ++j) {
            const bool given = half + j < some;
            bits[j] = query_bits<T, kAligned>(p, q + half + j, given ? column : int64_t{b.dim});
          }
#pragma unroll
          for (int j = 0; j < kAtOnce; ++j) {
            if (half + j >= some) break;
            float query[kLaneColumns];
            query_values<T>(p, bits[j], query);
#pragma unroll
            for (int row = 0; row < kKeyRows; ++row) {
              const float w = __shfl_sync(kAllLanes, grads, (half + j) * kKeyRows + row);
              if ((valid_rows >> row & 1) == 0) continue;
#pragma unroll
              for (int c = 0; c < kLaneColumns; ++c) acc[row][c] = fmaf(w, query[c], acc[row][c]);
            }
          }
        }
        grads = next;
      }
    }
    __syncthreads();
  }
  T* const out = static_cast<T*>(params.key_grad);
#pragma unroll
  for (int row = 0; row < kKeyRows; ++row) {
    const int64_t position = warp_first + row;
    if (position >= last) continue;
    store_columns<T, kAligned>(out + position * b.dim, column, b.dim, p.scale, acc[row]);
  }
}

// The gradient of s for every behaviour of a sequence or window, summed over its queries, with its
// delta. Query i belongs to sum i % kQuerySums; the sums are added in order, whether one thread of
// a behaviour has them all or each has a thread. What is not valid gets 0.
template <int kThreads>
__global__ void __launch_bounds__(kBlockThreads, 3)
    s_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int parts) {
  constexpr int kBehaviours = kBlockThreads / kThreads, kSums = kQuerySums / kThreads;
  constexpr int kLoads = kThreads == 1 ? kQuerySums : 16;  // in flight
  __shared__ float sums[kThreads][kBehaviours];
  const DeviceSearchParams& p = params.search;
  const int64_t s = blockIdx.x / parts;
  const int part = static_cast<int>(blockIdx.x % parts);
  const SequenceView view = view_sequence(p, s);
  const QueryRange queries = queries_of(p, s);
  const bool dense = p.layout == SearchLayout::kDense;
  const int64_t begin = p.layout == SearchLayout::kWindows ? p.score_begin[s] : view.position;
  const int64_t row =
      dense ? p.columns : int64_t{view.length};  // from a query's scores to the next's
  const int64_t room = min(row, params.s_count - begin);
  const int64_t scores = scores_of(p, queries.begin, view);
  const int64_t fitting = row > 0 ? (p.score_count - scores) / row : 0;  // queries
  // Unsigned: a step past the last of 2^31 - 1 queries is more than an int holds.
  const unsigned count = static_cast<unsigned>(min(queries.end - queries.begin, fitting));
  const int thread = threadIdx.x / kBehaviours, behaviour = threadIdx.x % kBehaviours;
  for (int64_t tile = int64_t{part} * kBehaviours; tile < room; tile += parts * kBehaviours) {
    const int64_t m = tile + behaviour;
    const bool valid = m < room && m < view.length && is_valid(p, view, static_cast<unsigned>(m));
    const float* grad = params.grad + scores + m;
    float acc[kSums] = {};
    for (unsigned q = thread; valid && q < count; q += kLoads * kThreads) {
      float values[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const unsigned query = q + i * kThreads;
        values[i] = query < count ? __ldg(grad + query * row) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) acc[i % kSums] += values[i];
    }
    float sum = acc[0];
    if constexpr (kThreads > 1) {
      sums[thread][behaviour] = sum;
      __syncthreads();
      if (thread == 0) {
        for (int i = 1; i < kThreads; ++i) sum += sums[i][behaviour];
      }
      __syncthreads();
    } else {
#pragma unroll
      for (int i = 1; i < kSums; ++i) sum += acc[i];
    }
    if (thread != 0 || m >= room) continue;
    params.s_grad[begin + m] = sum;
    params.s_delta[begin + m] =
        valid && count > 0  // features of a time may be infinite, and no query's 0 of inf is NaN
            ? clock_delta(p.clock, clock_time(p.clock, time_of(p, view, static_cast<unsigned>(m))),
                          view.query_clock)
            : 0;
  }
}

int panels_of(const DeviceSearchParams& p, int columns = kPanel) {
  return static_cast<int>((p.behaviours.dim + columns - 1) / columns);
}

// Queries of a block of query_grad_kernel: several only where they can see the same keys.
constexpr int kTogether = 4;
int queries_together(const DeviceSearchParams& p) {
  return p.queries > p.sequences ? kTogether : 1;
}

}  // namespace

int gsu_score_query_sums(const DeviceSearchParams& p, int* sums, int* parts) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t longest = p.longest();
  const int64_t sum_blocks = max((longest + kSumBlock - 1) / kSumBlock, int64_t{1});
  *sums = static_cast<int>(min(sum_blocks, int64_t{kSums}));
  const int together = queries_together(p);
  const int64_t blocks =
      max(query_groups(p, together) * panels_of(p, query_panel(together)), int64_t{1});
  const int64_t wanted = (8 * device.multiprocessors + blocks - 1) / blocks;
  *parts = static_cast<int>(min(wanted, int64_t{*sums}));
  return cudaSuccess;
}

int launch_gsu_score_query_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  const int together = queries_together(p), panels = panels_of(p, query_panel(together));
  if (p.queries == 0 || panels == 0) return cudaSuccess;
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
  if (error != cudaSuccess || params.parts == 1) return error;
  const unsigned grid = grid_for(p.queries * p.behaviours.dim, kBlockThreads);
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T,
                       (query_grad_reduce_kernel<T><<<grid, kBlockThreads, 0, stream>>>(params)));
  return cudaGetLastError();
}

int launch_gsu_score_key_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  const int panels = panels_of(p);
  const auto blocks_of_keys = [](int64_t rows) {
    return (rows + kKeyBlockRows - 1) / kKeyBlockRows;
  };
  const int64_t key_blocks = p.layout == SearchLayout::kDense
                                 ? p.sequences * blocks_of_keys(p.columns)
                                 : blocks_of_keys(p.positions);
  if (key_blocks == 0 || panels == 0) return cudaSuccess;
  const int64_t dim = p.behaviours.dim;
  const bool aligned = dim % kLaneColumns == 0 && reinterpret_cast<uintptr_t>(p.query) % 16 == 0;
  int error = cudaSuccess;
  const auto launch = [&](auto* kernel) {
    error = for_each_part(key_blocks, panels, [&](int64_t first, int64_t count) {
      kernel<<<grid_of(count * panels), kBlockThreads, 0, stream>>>(params, panels, first);
      return cudaGetLastError();
    });
  };
  LONGCLOCK_WITH_DTYPE(
      p.behaviours.dtype, T,
      aligned ? launch(key_grad_kernel<T, true>) : launch(key_grad_kernel<T, false>));
  return error;
}

int launch_gsu_score_s_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  if (p.sequences == 0 || params.s_count == 0) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t threads = int64_t{device.multiprocessors} * 2048;  // that a GPU has at once
  const bool share = params.s_count < threads && p.queries >= kQuerySums * p.sequences;
  const int64_t behaviours = share ? kBlockThreads / kQuerySums : kBlockThreads;
  const int64_t most = params.s_count / p.sequences / behaviours + 1;  // of an average sequence
  const int64_t wanted = 16 * device.multiprocessors / p.sequences + 1;
  const int parts = static_cast<int>(min(most, wanted));
  const unsigned blocks = grid_of(p.sequences * parts);
  (share ? s_grad_kernel<kQuerySums> : s_grad_kernel<1>)<<<blocks, kBlockThreads, 0, stream>>>(
      params, parts);
  return cudaGetLastError();
}

}  // namespace longclock
