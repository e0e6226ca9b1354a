// SPDX-License-Identifier: Apache-2.0
// Rows added up with gradients as weights, on tensor cores: out[a][d] = sum over k of
// weight[a][k] row[k][d], k in order. A float is two numbers of TF32, the nearest one and the rest:
// elements of 16 bits are exact in one, so that weights, which keep their 32 bits, take two
// products, and elements of 32 bits three, as in the scores (search/candidate_tile.cuh).
// 32 rows at a time and their weights come through two stages of shared memory, the next while the
// last are multiplied. What a lane reads of them is two neighbours, of weights two rows or two
// sums, of rows two columns, and lies in banks of its own: which k and which columns an mma takes
// together is free, as long as both its sides agree.
#pragma once

#include "longclock/common/async_copy.cuh"
#include "longclock/common/mma.cuh"
#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/search/candidate_tile.cuh"

namespace longclock {

constexpr int kWeightedThreads = 128;
constexpr int kWeightedRows = 32;  // of a step

// kPanelWarps: of the block's four warps, those that have columns of their own, 64 each; the others
// have sums of their own. kBySum: weights lie in lines of one sum, else in lines of one row.
template <class T, int kPanelWarps, bool kBySum>
class WeightedRows {
 public:
  static constexpr int kColumns = 64 * kPanelWarps;
  static constexpr int kSums = 128 / kPanelWarps;

  struct Stage {
    static constexpr int kLines = kBySum ? kSums : kWeightedRows;
    static constexpr int kLineFloats = kBySum ? kWeightedRows + 8 : kSums + 4;
    static constexpr int kRowBytes = kColumns * static_cast<int>(sizeof(T)) + 16;
    float weights[kLines][kLineFloats];
    char rows[kWeightedRows][kRowBytes];
  };
  using Memory = Stage[2];

  __device__ explicit WeightedRows(Memory& stages) : stages_(stages) {}

  // Adds steps [0, steps) of the source, which has weights(step, four)(line), four of a line, and
  // piece(step, row, piece), 16 bytes of one; zeros where there is nothing. All threads.
  template <class Source>
  __device__ __forceinline__ void add(const Source& source, int steps) {
    if (steps > 0) {
      load(source, 0);
      store(0);
    }
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      __syncthreads();
      const bool more = step + 1 < steps;
      if (more) load(source, step + 1);
      multiply(step % 2);
      if (more) store((step + 1) % 2);
    }
    __syncthreads();
  }

  // Of the sums of a lane, in fours of neighbouring columns: which sum and first column has four i.
  static constexpr int kLaneFours = 16;
  __device__ static int sum_of(int i) {
    const int quad = lane_index() / 4, half = i / kPairs % 2;
    return first_sum() + i / (2 * kPairs) * 16 + (kBySum ? quad + 8 * half : 2 * quad + half);
  }
  __device__ static int column_of(int i) {
    return first_column() + i % kPairs * 16 + lane_index() % 4 * 4;
  }

  // Calls f(i, four) for all sums of this lane, which become 0.
  template <class F>
  __device__ __forceinline__ void take(const F& f) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
          float (&even)[4] = acc_[group][2 * pair], (&odd)[4] = acc_[group][2 * pair + 1];
          const float four[4] = {even[2 * half], odd[2 * half], even[2 * half + 1],
                                 odd[2 * half + 1]};
          f((group * 2 + half) * kPairs + pair, four);
        }
      }
    }
#pragma unroll
    for (auto& group : acc_) {
#pragma unroll
      for (float (&tile)[4] : group) {
#pragma unroll
        for (float& value : tile) value = 0.0f;
      }
    }
  }

 private:
  static constexpr int kGroups = 2;                                    // of 16 sums, of a warp
  static constexpr int kPairs = 4;                                     // of two tiles of 8 columns
  static constexpr int kFours = (kBySum ? kWeightedRows : kSums) / 4;  // of a line of weights
  static constexpr int kLoads = Stage::kLines * kFours / kWeightedThreads;
  static constexpr int kPieces = kColumns * static_cast<int>(sizeof(T)) / 16;  // of a row
  static constexpr int kPieceLoads = kWeightedRows * kPieces / kWeightedThreads;

  __device__ static int first_sum() { return warp_index() / kPanelWarps * 32; }
  __device__ static int first_column() { return warp_index() % kPanelWarps * 64; }

  // Of load i: the line of weights, and the row.
  __device__ static int line(int i) {
    return i * (kWeightedThreads / kFours) + static_cast<int>(threadIdx.x) / kFours;
  }
  __device__ static int row(int i) {
    return i * (kWeightedThreads / kPieces) + static_cast<int>(threadIdx.x) / kPieces;
  }

  template <class Source>
  __device__ __forceinline__ void load(const Source& source, int step) {
#pragma unroll
    for (int i = 0; i < kPieceLoads; ++i) {
      pieces_[i] = source.piece(step, row(i), static_cast<int>(threadIdx.x % kPieces));
    }
    const auto weights = source.weights(step, static_cast<int>(threadIdx.x % kFours));
#pragma unroll
    for (int i = 0; i < kLoads; ++i) weights_[i] = weights(line(i));
  }

  __device__ __forceinline__ void store(int stage) {
    Stage& to = stages_[stage];
#pragma unroll
    for (int i = 0; i < kPieceLoads; ++i) {
      *reinterpret_cast<uint4*>(to.rows[row(i)] + threadIdx.x % kPieces * 16) = pieces_[i];
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      *reinterpret_cast<float4*>(to.weights[line(i)] + threadIdx.x % kFours * 4) = weights_[i];
    }
  }

  // As A of an mma: rows g and g + 8 are sums g and g + 8, or 2 g and 2 g + 1; its columns t and
  // t + 4 are rows 2 t and 2 t + 1.
  __device__ __forceinline__ static void read_weights(const Stage& stage, int group, int k,
                                                      float (&a)[4]) {
    const int quad = lane_index() / 4, sum = first_sum() + group * 16;
    const int first = k + lane_index() % 4 * 2;
    if constexpr (kBySum) {
      const float2 x = *reinterpret_cast<const float2*>(stage.weights[sum + quad] + first);
      const float2 y = *reinterpret_cast<const float2*>(stage.weights[sum + quad + 8] + first);
      a[0] = x.x, a[1] = y.x, a[2] = x.y, a[3] = y.y;
    } else {
      const float2 x = *reinterpret_cast<const float2*>(stage.weights[first] + sum + 2 * quad);
      const float2 y = *reinterpret_cast<const float2*>(stage.weights[first + 1] + sum + 2 * quad);
      a[0] = x.x, a[1] = x.y, a[2] = y.x, a[3] = y.y;
    }
  }

  // Two neighbouring columns of a row: of the tiles of a pair one each.
  __device__ __forceinline__ static float2 read_columns(const Stage& stage, int pair, int row) {
    const int column = first_column() + pair * 16 + lane_index() / 4 * 2;
    const char* const at = stage.rows[row] + column * static_cast<int>(sizeof(T));
    if constexpr (sizeof(T) == 4) {
      return *reinterpret_cast<const float2*>(at);
    } else {
      const uint32_t two = *reinterpret_cast<const uint32_t*>(at);
      return {widen(T{static_cast<uint16_t>(two)}), widen(T{static_cast<uint16_t>(two >> 16)})};
    }
  }

  // Of what is not finite the rest is NaN: whoever takes the sums adds those again that are not.
  __device__ __forceinline__ static void split(float value, uint32_t& near, uint32_t& rest) {
    near = to_tf32(value);
    rest = __float_as_uint(value - __uint_as_float(near));
  }

  __device__ __forceinline__ void multiply(int stage) {
    const Stage& from = stages_[stage];
#pragma unroll
    for (int k = 0; k < kWeightedRows; k += 8) {
      uint32_t a[kGroups][4], a_rest[kGroups][4];
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        float weights[4];
        read_weights(from, group, k, weights);
#pragma unroll
        for (int i = 0; i < 4; ++i) split(weights[i], a[group][i], a_rest[group][i]);
      }
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const int row = k + lane_index() % 4 * 2;
        const float2 first = read_columns(from, pair, row);
        const float2 second = read_columns(from, pair, row + 1);
        multiply_tile(a, a_rest, first.x, second.x, 2 * pair);
        multiply_tile(a, a_rest, first.y, second.y, 2 * pair + 1);
      }
    }
  }

  // The small products first.
  __device__ __forceinline__ void multiply_tile(const uint32_t (&a)[kGroups][4],
                                                const uint32_t (&a_rest)[kGroups][4], float b0,
                                                float b1, int tile) {
    uint32_t b[2] = {__float_as_uint(b0), __float_as_uint(b1)}, b_rest[2];
    if constexpr (sizeof(T) == 4) {
      split(b0, b[0], b_rest[0]);
      split(b1, b[1], b_rest[1]);
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      float (&sum)[4] = acc_[group][tile];
      mma_16x8x8_tf32(sum, a_rest[group], b[0], b[1]);
      if constexpr (sizeof(T) == 4) mma_16x8x8_tf32(sum, a[group], b_rest[0], b_rest[1]);
      mma_16x8x8_tf32(sum, a[group], b[0], b[1]);
    }
  }

  Memory& stages_;
  float4 weights_[kLoads];
  uint4 pieces_[kPieceLoads];
  float acc_[kGroups][2 * kPairs][4] = {};
};

}  // namespace longclock
