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
constexpr int kPanel = 128;       // columns of a block
constexpr int kSegment = 1024;    // behaviours that are summed on their own
constexpr int kKeyRows = 4;       // positions of a warp
constexpr int kManyQueries = 16;  // of a sequence
constexpr int kKeyBlockRows = kBlockWarps * kKeyRows;
constexpr int kLaneColumns = kPanel / kWarp;

__device__ __forceinline__ float query_element(const DeviceSearch& p, int64_t q, int64_t d) {
  if (d >= p.behaviours.dim) return 0.0f;
  const int64_t at = q * p.behaviours.dim + d;
  float value = 0.0f;
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, {
    value = p.query_is_float ? widen(narrow<T>(static_cast<const float*>(p.query)[at]))
                             : widen(static_cast<const T*>(p.query)[at]);
  });
  return value;
}

// The gradient of a score, or 0 where the result has no such element.
__device__ __forceinline__ float score_grad(const DeviceSearch& p, const float* grad, int64_t at) {
  return at < p.score_count ? p.scale * grad[at] : 0.0f;
}

// query_grad = scale * sum over behaviours of grad * key. One block a query, a panel of columns
// and, where segments are shared out, a segment. Rows are read as the scores read them; a lane adds
// up the columns of its pieces over the rows of its quad.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kBlockThreads, 2)
    query_grad_kernel(const __grid_constant__ GsuScoreBackwardDeviceParams params, int panels) {
  constexpr int kPiece = kVector16<T>, kStep = 4 * kPiece, kSteps = kPanel / kStep;
  __shared__ float sums[kBlockWarps][kPanel];
  const DeviceSearch& p = params.search;
  const Behaviours& b = p.behaviours;
  int64_t block = blockIdx.x;
  const int panel = static_cast<int>(block % panels);
  block /= panels;
  const int64_t q = block / params.segments;
  const int segment = static_cast<int>(block % params.segments);
  const SequenceView view = view_sequence(p, sequence_of(p, q));
  const int64_t scores = scores_of(p, q, view);
  const int quad = lane_index() / 4, lane = lane_index() % 4;
  const int first_column = panel * kPanel + lane * kPiece;
  const bool all = params.segments == 1;

  float total = 0.0f;  // of column panel * kPanel + threadIdx.x
  for (int64_t from = int64_t{segment} * kSegment; from < view.length;
       from += all ? int64_t{kSegment} : view.length) {
    const int begin = static_cast<int>(from), end = min(view.length - begin, kSegment) + begin;
    float acc[kSteps][kPiece] = {};
    for (int tile = begin + warp_index() * kTileRows; tile < end; tile += kBlockThreads) {
      const int m = tile + lane * 8 + quad;
      const bool there = m < end && is_there(p, view, m);
      const unsigned rows_there = __ballot_sync(kAllLanes, there);
      if (rows_there == 0) continue;
      const float weight = there ? score_grad(p, params.grad, scores + m) : 0.0f;
      const char* row = row_after(p, view.keys, min(m, end - 1));
      bool known = true;
      if (b.ids) {
        const int64_t id = there ? b.ids[view.position + m] : 0;
        known = !there || is_row(p, id);
        row = static_cast<const char*>(b.keys) + (known ? id : 0) * p.row_bytes;
      }
      const unsigned rows_known = __ballot_sync(kAllLanes, known);
#pragma unroll(kAligned ? kTileGroups : 1)
      for (int j = 0; j < kTileGroups; ++j) {
        const int source = quad * 4 + j;
        const float w = __shfl_sync(kAllLanes, weight, source);
        const T* keys = reinterpret_cast<const T*>(
            __shfl_sync(kAllLanes, reinterpret_cast<uintptr_t>(row), source));
        if ((rows_there >> source & 1) == 0) continue;
        const bool readable = rows_known >> source & 1;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          const int d = first_column + step * kStep;
          if (d >= b.dim) continue;
          float key[kPiece];
          widen16<T>(readable ? load16<T, kAligned>(keys, d, b.dim) : make_uint4(0, 0, 0, 0), key);
#pragma unroll
          for (int i = 0; i < kPiece; ++i) {
            acc[step][i] = fmaf(w, readable ? key[i] : NAN, acc[step][i]);
          }
        }
      }
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        float sum = acc[step][i];
#pragma unroll
        for (int offset = 4; offset < kWarp; offset *= 2) {
          sum += __shfl_xor_sync(kAllLanes, sum, offset);
        }
        if (quad == 0) sums[warp_index()][lane * kPiece + step * kStep + i] = sum;
      }
    }
    __syncthreads();
    if (threadIdx.x < kPanel) {
      float sum = 0.0f;
      for (int w = 0; w < kBlockWarps; ++w) sum += sums[w][threadIdx.x];
      total += sum;
    }
    __syncthreads();
  }
  const int64_t column = panel * kPanel + threadIdx.x;
  if (threadIdx.x >= kPanel || column >= b.dim) return;
  if (!all) {
    params.query_partial[(q * params.segments + segment) * b.dim + column] = total;
  } else if (p.query_is_float) {
    static_cast<float*>(params.query_grad)[q * b.dim + column] = total;
  } else {
    static_cast<T*>(params.query_grad)[q * b.dim + column] = narrow<T>(total);
  }
}

// Adds the segments in order.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    query_grad_reduce_kernel(const __grid_constant__ GsuScoreBackwardDeviceParams params) {
  const int64_t dim = params.search.behaviours.dim, count = params.search.queries * dim;
  for (int64_t i = grid_index(); i < count; i += grid_stride()) {
    const float* partial = params.query_partial + i / dim * params.segments * dim + i % dim;
    float total = 0.0f;
    for (int64_t s = 0; s < params.segments; ++s) total += partial[s * dim];
    if (params.search.query_is_float) {
      static_cast<float*>(params.query_grad)[i] = total;
    } else {
      static_cast<T*>(params.query_grad)[i] = narrow<T>(total);
    }
  }
}

// The gradients of 8 queries' scores at the 4 positions of a warp, from query q on; lane 4 j + i
// has query j, position i.
struct KeyRows {
  int64_t position;  // of the warp's first
  unsigned there;    // bit i: position i counts for the sequence at hand

  __device__ float grads(const GsuScoreBackwardDeviceParams& params, const SequenceView& view,
                         int64_t q, int64_t q_end) const {
    const int i = lane_index() % kKeyRows;
    const int64_t query = q + lane_index() / kKeyRows;
    if (query >= q_end || (there >> i & 1) == 0) return 0.0f;
    const int64_t m = position + i - view.position;
    return score_grad(params.search, params.grad, scores_of(params.search, query, view) + m);
  }
};

// key_grad = scale * sum over queries of grad * query. One block for 32 positions and a panel of
// columns: it looks for the sequences that hold some of them, 256 at a time, and adds their queries
// in order. Writes every element.
template <class T>
__global__ void __launch_bounds__(kBlockThreads, 3)
    key_grad_kernel(const __grid_constant__ GsuScoreBackwardDeviceParams params, int panels) {
  __shared__ int64_t found[kBlockThreads];
  __shared__ int warp_found[kBlockWarps];
  const DeviceSearch& p = params.search;
  const Behaviours& b = p.behaviours;
  const int panel = static_cast<int>(blockIdx.x % panels);
  const int64_t chunk = blockIdx.x / panels;
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
  KeyRows rows = {first + warp_index() * kKeyRows, 0};
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
      const int64_t position = rows.position + lane_index();
      const bool there = lane_index() < kKeyRows && position < last && position >= view.position &&
                         position < view.position + view.length &&
                         is_there(p, view, static_cast<unsigned>(position - view.position));
      rows.there = __ballot_sync(kAllLanes, there);
      if (rows.there == 0) continue;
      const QueryRange queries = queries_of(p, s);
      for (int64_t q = queries.begin; q < queries.end; q += kWarp / kKeyRows) {
        const float grads = rows.grads(params, view, q, queries.end);
        const int some = static_cast<int>(min(int64_t{kWarp / kKeyRows}, queries.end - q));
        for (int j = 0; j < some; ++j) {
          float query[kLaneColumns];
#pragma unroll
          for (int c = 0; c < kLaneColumns; ++c) query[c] = query_element(p, q + j, column + c);
#pragma unroll
          for (int i = 0; i < kKeyRows; ++i) {
            const float w = __shfl_sync(kAllLanes, grads, j * kKeyRows + i);
            if ((rows.there >> i & 1) == 0) continue;
#pragma unroll
            for (int c = 0; c < kLaneColumns; ++c) acc[i][c] = fmaf(w, query[c], acc[i][c]);
          }
        }
      }
    }
    __syncthreads();
  }
  T* const out = static_cast<T*>(params.key_grad);
#pragma unroll
  for (int i = 0; i < kKeyRows; ++i) {
    const int64_t position = rows.position + i;
    for (int c = 0; c < kLaneColumns; ++c) {
      if (position < last && column + c < b.dim) {
        out[position * b.dim + column + c] = narrow<T>(acc[i][c]);
      }
    }
  }
}

// The gradient of s for every behaviour of a sequence or window, summed over its queries, with its
// delta. What is not there gets 0. Where queries are many, each warp of a block adds up every
// eighth of them for 32 behaviours; else each has behaviours of its own.
__global__ void __launch_bounds__(kBlockThreads, 4)
    s_grad_kernel(const __grid_constant__ GsuScoreBackwardDeviceParams params, int parts) {
  __shared__ float sums[kBlockWarps][kWarp];
  const DeviceSearch& p = params.search;
  const int64_t s = blockIdx.x / parts;
  const int part = static_cast<int>(blockIdx.x % parts);
  const SequenceView view = view_sequence(p, s);
  const QueryRange queries = queries_of(p, s);
  const bool dense = p.layout == SearchLayout::kDense;
  const int64_t begin = p.layout == SearchLayout::kWindows ? p.score_begin[s] : view.position;
  const int64_t room = min(dense ? p.columns : int64_t{view.length}, params.s_count - begin);
  const bool shared = queries.end - queries.begin >= kManyQueries;
  const int step = shared ? kWarp : kBlockThreads;
  for (int64_t first = int64_t{part} * step; first < room; first += int64_t{parts} * step) {
    const int64_t m = first + static_cast<int>(threadIdx.x) % step;
    const bool there = m < room && m < view.length && is_there(p, view, static_cast<unsigned>(m));
    float sum = 0.0f;
    if (there) {
#pragma unroll 4
      for (int64_t q = queries.begin + (shared ? warp_index() : 0); q < queries.end;
           q += shared ? kBlockWarps : 1) {
        const int64_t at = scores_of(p, q, view) + m;
        if (at < p.score_count) sum += params.grad[at];
      }
    }
    if (shared) {
      sums[warp_index()][lane_index()] = sum;
      __syncthreads();
      for (int w = 1; warp_index() == 0 && w < kBlockWarps; ++w) sum += sums[w][lane_index()];
      __syncthreads();
    }
    if (m >= room || (shared && warp_index() > 0)) continue;
    params.s_grad[begin + m] = sum;
    params.s_delta[begin + m] =
        there
            ? clock_delta(p.clock, clock_time(p.clock, time_of(p, view, static_cast<unsigned>(m))),
                          view.clock_now)
            : 0;
  }
}

int panels_of(const DeviceSearch& p) {
  return static_cast<int>((p.behaviours.dim + kPanel - 1) / kPanel);
}

}  // namespace

int gsu_score_segments(const DeviceSearch& p, int64_t* segments) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const bool few = p.queries * panels_of(p) < 4 * int64_t{device.multiprocessors};
  *segments = p.layout == SearchLayout::kDense && few ? (p.columns + kSegment - 1) / kSegment : 1;
  if (*segments < 1) *segments = 1;
  return cudaSuccess;
}

int launch_gsu_score_query_grad(const GsuScoreBackwardDeviceParams& params, CudaStream stream) {
  const DeviceSearch& p = params.search;
  const int panels = panels_of(p);
  if (p.queries == 0 || panels == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>(p.queries * params.segments * panels);
  const auto launch = [&](auto* kernel) {
    kernel<<<blocks, kBlockThreads, 0, stream>>>(params, panels);
  };
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T,
                       search_is_aligned(p) ? launch(query_grad_kernel<T, true>)
                                            : launch(query_grad_kernel<T, false>));
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  if (params.segments == 1) return cudaSuccess;
  const unsigned grid = grid_for(p.queries * p.behaviours.dim, kBlockThreads);
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T,
                       (query_grad_reduce_kernel<T><<<grid, kBlockThreads, 0, stream>>>(params)));
  return cudaGetLastError();
}

int launch_gsu_score_key_grad(const GsuScoreBackwardDeviceParams& params, CudaStream stream) {
  const DeviceSearch& p = params.search;
  const int panels = panels_of(p);
  const auto chunks = [](int64_t rows) { return (rows + kKeyBlockRows - 1) / kKeyBlockRows; };
  const int64_t blocks =
      panels *
      (p.layout == SearchLayout::kDense ? p.sequences * chunks(p.columns) : chunks(p.positions));
  if (blocks == 0) return cudaSuccess;
  LONGCLOCK_WITH_DTYPE(
      p.behaviours.dtype, T,
      (key_grad_kernel<T>
       <<<static_cast<unsigned>(blocks), kBlockThreads, 0, stream>>>(params, panels)));
  return cudaGetLastError();
}

int launch_gsu_score_s_grad(const GsuScoreBackwardDeviceParams& params, CudaStream stream) {
  const DeviceSearch& p = params.search;
  if (p.sequences == 0 || params.s_count == 0) return cudaSuccess;
  // Blocks of a sequence: for 1,024 of its behaviours, or for 128 where warps share them.
  const int64_t share = p.queries >= kManyQueries * p.sequences ? 128 : 1024;
  const int parts =
      static_cast<int>(min(params.s_count / p.sequences / share + 1, int64_t{1} << 20));
  s_grad_kernel<<<static_cast<unsigned>(p.sequences * parts), kBlockThreads, 0, stream>>>(params,
                                                                                          parts);
  return cudaGetLastError();
}

}  // namespace longclock
