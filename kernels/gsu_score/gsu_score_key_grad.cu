// SPDX-License-Identifier: Apache-2.0
// The gradient of keys that are no table's: the queries that see a key, added up with the gradients
// of its scores as weights. What is written bounds it where a sequence has few queries,
// multiply-adds where it has many. Each element has one owner, which adds in a fixed order; there
// are no atomics, and neither the other sequences of a batch nor the number of blocks shows in a
// bit.
#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;
constexpr int kPanel = 128;  // columns of a block
constexpr int kLaneColumns = kPanel / kWarp;
constexpr int kKeyRows = 4;  // positions of a warp
constexpr int kKeyBlockRows = kBlockWarps * kKeyRows;
constexpr int kKeyQueries = kWarp / kKeyRows;

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

// The positions of a block, and the sequences that may hold some of them.
struct KeyBlock {
  int64_t first, last;
  int64_t s_begin, s_end;
};

__device__ __forceinline__ KeyBlock key_block_of(const DeviceSearchParams& p, int64_t index) {
  const bool dense = p.layout == SearchLayout::kDense;
  const int64_t row_blocks = (p.columns + kKeyBlockRows - 1) / kKeyBlockRows;
  const int64_t row = dense ? index / row_blocks : 0;
  KeyBlock block;
  block.first =
      dense ? row * p.columns + index % row_blocks * kKeyBlockRows : index * kKeyBlockRows;
  block.last = min(block.first + kKeyBlockRows, dense ? (row + 1) * p.columns : p.positions);
  block.s_begin = 0;
  block.s_end = p.sequences;
  if (dense) {
    block.s_begin = row;
    block.s_end = row + 1;
  } else if (p.layout == SearchLayout::kRagged && p.sequences > 0) {
    block.s_begin = find_range(p.offsets, p.sequences - 1, block.first);
    block.s_end = find_range(p.offsets, p.sequences - 1, block.last - 1) + 1;
  }
  return block;
}

// Lists those of the 256 sequences from `tile` on that hold positions of the block, in order, and
// returns how many they are. All threads.
__device__ __forceinline__ int find_holding(const DeviceSearchParams& p, const KeyBlock& block,
                                            int64_t tile, int64_t (&found)[kBlockThreads]) {
  __shared__ int warp_found[kBlockWarps];
  const int64_t mine = tile + threadIdx.x;
  bool holds = false;
  if (mine < block.s_end) {
    const SequenceView view = view_sequence(p, mine);
    holds = view.position < block.last && view.position + view.length > block.first;
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
  return count;
}

// What a lane adds up: its columns of the warp's positions.
template <class T, bool kAligned>
class KeySums {
 public:
  __device__ KeySums(const DeviceGsuScoreBackwardParams& params, const KeyBlock& block, int panel)
      : params_(params),
        last_(block.last),
        warp_first_(block.first + warp_index() * kKeyRows),
        column_(panel * kPanel + lane_index() * kLaneColumns) {}

  // The queries of sequence s in order, 8 at a time: of their gradients lane 4 j + i has query j,
  // position i of the warp's four.
  __device__ void add_sequence(int64_t s) {
    const DeviceSearchParams& p = params_.search;
    const SequenceView view = view_sequence(p, s);
    const int64_t position = warp_first_ + lane_index() % kKeyRows, m = position - view.position;
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
      const int64_t position = warp_first_ + row;
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
  int64_t last_, warp_first_, column_;
  float acc_[kKeyRows][kLaneColumns] = {};
};

// key_grad = scale * sum over queries of grad * query. One block for 32 positions and a panel of
// columns: it looks for the sequences that hold some of them, 256 at a time, and adds their queries
// in order. Writes every element.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kBlockThreads, kAligned ? kTileBlocks : 2)
    key_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int panels,
                    int64_t first_block) {
  __shared__ int64_t found[kBlockThreads];
  const DeviceSearchParams& p = params.search;
  const int panel = static_cast<int>(blockIdx.x % panels);
  const KeyBlock block = key_block_of(p, first_block + blockIdx.x / panels);
  KeySums<T, kAligned> sums(params, block, panel);
  for (int64_t tile = block.s_begin; tile < block.s_end; tile += kBlockThreads) {
    const int count = find_holding(p, block, tile, found);
    for (int index = 0; index < count; ++index) sums.add_sequence(found[index]);
    __syncthreads();
  }
  sums.store();
}

}  // namespace

int launch_gsu_score_key_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  const int panels = static_cast<int>((p.behaviours.dim + kPanel - 1) / kPanel);
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

}  // namespace longclock
