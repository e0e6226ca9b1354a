// SPDX-License-Identifier: Apache-2.0
// The gradients of the query, the keys and the time term. Each output has one owner, which adds in
// a fixed order; there are no atomics, and neither the other sequences of a batch nor the number of
// blocks shows in a bit.
#include "../common/device.h"
#include "../common/launch.cuh"
#include "gsu_score.h"
#include "tile_scorer.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;
constexpr int kPanel = 128;    // columns of a block
constexpr int kRowLanes = 8;   // that read a row: a line of 128 bytes
constexpr int kSegment = 256;  // behaviours: a tile a warp
constexpr int kSplits = 32;    // sums of a query's gradient; segment i belongs to i % kSplits
constexpr int kKeyRows = 4;    // positions of a warp
constexpr int kKeyBlockRows = kBlockWarps * kKeyRows;
constexpr int kLaneColumns = kPanel / kWarp;
constexpr int kKeyQueries = kWarp / kKeyRows;
constexpr int kQuerySums = 8;  // sums of a behaviour's gradient of s

// Element `at` of the gradient of the queries.
template <class T>
__device__ __forceinline__ void store_query_grad(const GsuScoreBackwardDeviceParams& params,
                                                 int64_t at, float value) {
  if (params.search.query_is_float) {
    static_cast<float*>(params.query_grad)[at] = value;
  } else {
    static_cast<T*>(params.query_grad)[at] = narrow<T>(value);
  }
}

// Groups of at most `size` queries: dense, of one sequence each; flat, whatever their sequences.
__host__ __device__ __forceinline__ int64_t groups_of_sequence(const DeviceSearch& p, int size) {
  return (p.candidates + size - 1) / size;
}

inline int64_t query_groups(const DeviceSearch& p, int size) {
  return p.layout == SearchLayout::kDense ? p.sequences * groups_of_sequence(p, size)
                                          : (p.queries + size - 1) / size;
}

template <int kSize>
__device__ __forceinline__ QueryRange query_group(const DeviceSearch& p, int64_t group) {
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

// query_grad = scale * sum over behaviours of grad * key, as splits that are added in order, each
// of them every kSplits-th segment. One block for kQueries queries that see the same keys, a panel
// of columns and a share of the splits; a lane adds up the columns of its pieces over the rows of
// its kRowLanes. A request of a warp is four whole lines.
template <class T, bool kAligned, int kQueries>
__global__ void __launch_bounds__(kBlockThreads, 2)
    query_grad_kernel(const __grid_constant__ GsuScoreBackwardDeviceParams params, int panels,
                      unsigned first_group) {
  constexpr int kColumns = query_panel(kQueries);
  constexpr int kPiece = kVector16<T>, kStep = kRowLanes * kPiece, kSteps = kColumns / kStep;
  constexpr int kRows = kWarp / kRowLanes;  // of a request
  constexpr int kRequests = kTileRows / kRows,
                kAtOnce = kAligned ? (kQueries == 1 ? 8 : 4) / kSteps : 1;
  __shared__ float sums[kBlockWarps][kColumns];
  const DeviceSearch& p = params.search;
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
    for (int split = part; split < params.splits; split += params.parts) {
      if (static_cast<unsigned>(split) * kSegment >= length) {
        if (params.parts == 1) break;
        for (int i = 0; owner && i < count; ++i) {
          params.query_partial[((q + i) * params.splits + split) * b.dim + column] = 0.0f;
        }
        continue;
      }
      float acc[kQueries][kSteps][kPiece] = {};
      for (unsigned tile = split * kSegment + warp_index() * kTileRows; tile < length;
           tile += kSplits * kSegment) {
        const unsigned m = tile + lane_index();
        const bool there = m < length && (!p.filtered || is_there(p, view, m));
        const unsigned rows_there = __ballot_sync(kAllLanes, there);
        if (rows_there == 0) continue;
        const char* row = row_after(p, view.keys, m);
        bool known = true;
        if (b.ids) {
          const int64_t id = there ? b.ids[view.position + m] : 0;
          known = !there || is_row(p, id);
          row = static_cast<const char*>(b.keys) + id * int64_t{p.row_bytes};
        }
        const unsigned readable = __ballot_sync(kAllLanes, there && known);
        // Used only once the keys are on their way. A row that is not known makes NaN of its zeros.
        float weights[kQueries];
#pragma unroll
        for (int i = 0; i < kQueries; ++i) {
          const int64_t at = scores + i * row_of_scores + m;
          const bool given = there && i < count && at < p.score_count;
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
            params.query_partial[((q + i) * params.splits + split) * b.dim + column] = sum;
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

// Adds the splits in order.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    query_grad_reduce_kernel(const __grid_constant__ GsuScoreBackwardDeviceParams params) {
  const int64_t dim = params.search.behaviours.dim, count = params.search.queries * dim;
  for (int64_t i = grid_index(); i < count; i += grid_stride()) {
    const float* partial = params.query_partial + i / dim * params.splits * dim + i % dim;
    float total = 0.0f;
#pragma unroll 8
    for (int split = 0; split < params.splits; ++split) total += partial[split * dim];
    store_query_grad<T>(params, i, total);
  }
}

// Columns [d, d + 4) of query q as they lie: fp32 or 16 bits. kAligned: D is a multiple of 4, and
// the query of what one load takes.
template <class T, bool kAligned>
__device__ __forceinline__ uint4 query_bits(const DeviceSearch& p, int64_t q, int64_t d) {
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
__device__ __forceinline__ void query_values(const DeviceSearch& p, const uint4& bits,
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
    key_grad_kernel(const __grid_constant__ GsuScoreBackwardDeviceParams params, int panels,
                    int64_t first_chunk) {
  constexpr int kAtOnce = kKeyQueries / 2;  // queries whose columns are in flight
  __shared__ int64_t found[kBlockThreads];
  __shared__ int warp_found[kBlockWarps];
  const DeviceSearch& p = params.search;
  const Behaviours& b = p.behaviours;
  const int panel = static_cast<int>(blockIdx.x % panels);
  const int64_t chunk = first_chunk + blockIdx.x / panels;
  const bool dense = p.layout == SearchLayout::kDense;
  const int64_t row_chunks = (p.columns + kKeyBlockRows - 1) / kKeyBlockRows;
  const int64_t row = dense ? chunk / row_chunks : 0;
  const int64_t first =
      dense ? row * p.columns + chunk % row_chunks * kKeyBlockRows : chunk * kKeyBlockRows;
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
      const bool there = position < last && m >= 0 && m < view.length &&
                         is_there(p, view, static_cast<unsigned>(m));
      const unsigned rows_there = __ballot_sync(kAllLanes, there);
      if (rows_there == 0) continue;
      const QueryRange queries = queries_of(p, s);
      const int64_t scores = scores_of(p, queries.begin, view) + m;
      const int64_t row_of_scores = dense ? p.columns : int64_t{view.length};
      const auto gradient = [&](int64_t q) {
        const int64_t query = q + lane_index() / kKeyRows;
        const int64_t at = scores + (query - queries.begin) * row_of_scores;
        float grad = 0.0f;
        if (there && query < queries.end && at < p.score_count) grad = __ldg(params.grad + at);
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
              if ((rows_there >> row & 1) == 0) continue;
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
// a behaviour has them all or each has a thread. What is not there gets 0.
template <int kThreads>
__global__ void __launch_bounds__(kBlockThreads, 3)
    s_grad_kernel(const __grid_constant__ GsuScoreBackwardDeviceParams params, int parts) {
  constexpr int kBehaviours = kBlockThreads / kThreads, kSums = kQuerySums / kThreads;
  constexpr int kLoads = kThreads == 1 ? kQuerySums : 16;  // in flight
  __shared__ float sums[kThreads][kBehaviours];
  const DeviceSearch& p = params.search;
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
    const bool there = m < room && m < view.length && is_there(p, view, static_cast<unsigned>(m));
    const float* grad = params.grad + scores + m;
    float acc[kSums] = {};
    for (unsigned q = thread; there && q < count; q += kLoads * kThreads) {
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
        there && count > 0  // features of a time may be infinite, and no query's 0 of inf is NaN
            ? clock_delta(p.clock, clock_time(p.clock, time_of(p, view, static_cast<unsigned>(m))),
                          view.clock_now)
            : 0;
  }
}

int panels_of(const DeviceSearch& p, int columns = kPanel) {
  return static_cast<int>((p.behaviours.dim + columns - 1) / columns);
}

// Queries of a block of query_grad_kernel: several only where they can see the same keys.
constexpr int kTogether = 4;
int queries_together(const DeviceSearch& p) { return p.queries > p.sequences ? kTogether : 1; }

}  // namespace

int gsu_score_query_splits(const DeviceSearch& p, int* splits, int* parts) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t longest = p.layout == SearchLayout::kDense ? p.columns : p.positions;
  const int64_t segments = max((longest + kSegment - 1) / kSegment, int64_t{1});
  *splits = static_cast<int>(min(segments, int64_t{kSplits}));
  const int together = queries_together(p);
  const int64_t blocks =
      max(query_groups(p, together) * panels_of(p, query_panel(together)), int64_t{1});
  const int64_t wanted = (8 * device.multiprocessors + blocks - 1) / blocks;
  *parts = static_cast<int>(min(wanted, int64_t{*splits}));
  return cudaSuccess;
}

int launch_gsu_score_query_grad(const GsuScoreBackwardDeviceParams& params, CudaStream stream) {
  const DeviceSearch& p = params.search;
  const int together = queries_together(p), panels = panels_of(p, query_panel(together));
  if (p.queries == 0 || panels == 0) return cudaSuccess;
  const int64_t group_blocks = int64_t{params.parts} * panels;
  const bool aligned = search_is_aligned(p);
  int error = cudaSuccess;
  const auto launch = [&](auto* one, auto* several) {
    auto* const kernel = together == 1 ? one : several;
    // Groups are no more than queries and sequences, each fewer than 2^31: 32 bits hold them.
    error = for_each_portion(query_groups(p, together), group_blocks,
                             [&](int64_t first, int64_t count) {
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

int launch_gsu_score_key_grad(const GsuScoreBackwardDeviceParams& params, CudaStream stream) {
  const DeviceSearch& p = params.search;
  const int panels = panels_of(p);
  const auto chunks_of = [](int64_t rows) { return (rows + kKeyBlockRows - 1) / kKeyBlockRows; };
  const int64_t chunks = p.layout == SearchLayout::kDense ? p.sequences * chunks_of(p.columns)
                                                          : chunks_of(p.positions);
  if (chunks == 0 || panels == 0) return cudaSuccess;
  const int64_t dim = p.behaviours.dim;
  const bool aligned = dim % kLaneColumns == 0 && reinterpret_cast<uintptr_t>(p.query) % 16 == 0;
  int error = cudaSuccess;
  const auto launch = [&](auto* kernel) {
    error = for_each_portion(chunks, panels, [&](int64_t first, int64_t count) {
      kernel<<<grid_of(count * panels), kBlockThreads, 0, stream>>>(params, panels, first);
      return cudaGetLastError();
    });
  };
  LONGCLOCK_WITH_DTYPE(
      p.behaviours.dtype, T,
      aligned ? launch(key_grad_kernel<T, true>) : launch(key_grad_kernel<T, false>));
  return error;
}

int launch_gsu_score_s_grad(const GsuScoreBackwardDeviceParams& params, CudaStream stream) {
  const DeviceSearch& p = params.search;
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
