// SPDX-License-Identifier: Apache-2.0
// What the kernels of esu_attention share: how rows of z lie over the threads of a block.
//
// `lanes` lanes of a warp (4 to 32, a power of two) work on two rows at a time for the four heads
// of a group, each on four columns: 32 lanes a panel of 128. Rows are read 16 bytes a lane. Of
// 16-bit rows that is eight columns, so the lower half of the lanes reads one row and the upper
// half the other, and two lanes exchange half of what they read. Wider rows are cut into panels; a
// block then computes whole dot products and keeps its own panel's columns of the results. What is
// not a column's work is shared as well: after sum_heads(), lane l has head l & 3.
#pragma once

#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/esu_attention/esu_attention.h"
#include "longclock/time/time_term.h"

namespace longclock {

constexpr int kEsuThreads = 128;
constexpr int kEsuWarps = kEsuThreads / kWarp;
constexpr int kEsuHeads = 4;  // of a group
constexpr int kEsuRows = 2;   // at a time

// How rows are read: 16 bytes at a time where all rows lie at multiples of that, else by elements.
// The fast form has one panel and fits 64 registers, 8 blocks a multiprocessor. Rows that have
// features are read by the same three forms of their own, which find the table that a column lies
// in.
enum class EsuForm { kFast, kWide, kAny, kTables, kWideTables, kAnyTables };
template <EsuForm kForm>
constexpr bool kHasFeatures = kForm >= EsuForm::kTables;
// The form of rows of one table.
template <EsuForm kForm>
constexpr EsuForm kWithoutFeatures =
    kHasFeatures<kForm>
        ? static_cast<EsuForm>(static_cast<int>(kForm) - static_cast<int>(EsuForm::kTables))
        : kForm;
template <EsuForm kForm>
constexpr bool kIsFast = kWithoutFeatures<kForm> == EsuForm::kFast;
template <EsuForm kForm>
constexpr bool kIsAligned = kWithoutFeatures<kForm> != EsuForm::kAny;
template <EsuForm kForm>
constexpr int kEsuBlocks = kForm == EsuForm::kFast     ? 8
                           : kForm == EsuForm::kTables ? 6
                                                       : 3;

// Depends on sizes alone, never on the device or the batch.
struct EsuGeometry {
  int lanes;   // that share two rows
  int shift;   // its logarithm
  int panels;  // of 4 * lanes columns
  int groups;  // of heads
  int parts;   // of K
  int64_t query_begin;
  DeviceClock clocks[kMaxClocks];
};

// The first of a lane's four columns in its panel.
template <class T>
__device__ __forceinline__ int lane_column(int lane, int lanes) {
  if constexpr (sizeof(T) == 4) return lane * 4;
  const int half = lanes / 2;
  return lane < half ? lane * 8 : (lane - half) * 8 + 4;
}

// And the lane of a column.
template <class T>
__device__ __forceinline__ int column_lane(int column, int lanes) {
  if constexpr (sizeof(T) == 4) return column / 4;
  return column / 8 + (column % 8 < 4 ? 0 : lanes / 2);
}

__device__ __forceinline__ float4 zero4() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }

__device__ __forceinline__ float dot4(const float4& x, const float4& y, float sum) {
  return fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum))));
}

__device__ __forceinline__ void add_scaled(float by, const float4& x, float4& sum) {
  sum.x = fmaf(by, x.x, sum.x);
  sum.y = fmaf(by, x.y, sum.y);
  sum.z = fmaf(by, x.z, sum.z);
  sum.w = fmaf(by, x.w, sum.w);
}

__device__ __forceinline__ void scale(float by, float4& x) {
  x.x *= by;
  x.y *= by;
  x.z *= by;
  x.w *= by;
}

template <class T>
__device__ __forceinline__ float4 widen4(const uint2& bits) {
  return make_float4(
      widen(T{static_cast<uint16_t>(bits.x)}), widen(T{static_cast<uint16_t>(bits.x >> 16)}),
      widen(T{static_cast<uint16_t>(bits.y)}), widen(T{static_cast<uint16_t>(bits.y >> 16)}));
}

// Rounded to nearest, two in one instruction.
template <class T>
__device__ __forceinline__ uint32_t narrow2(float low, float high) {
  if constexpr (__is_same(T, Float16)) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

template <class T>
__device__ __forceinline__ uint2 narrow4(const float4& v) {
  return make_uint2(narrow2<T>(v.x, v.y), narrow2<T>(v.z, v.w));
}

__device__ __forceinline__ uint2 select(bool first, const uint2& a, const uint2& b) {
  return make_uint2(first ? a.x : b.x, first ? a.y : b.y);
}

// Columns [at, at + 4) of a row of `size`; zeros past its end.
template <class T, bool kAligned>
__device__ __forceinline__ float4 load_quad(const T* __restrict__ row, int64_t at, int64_t size) {
  if constexpr (sizeof(T) == 4) {
    const uint4 bits = load16<float, kAligned>(row, at, size);
    return make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                       __uint_as_float(bits.w));
  } else if constexpr (kAligned) {
    return at < size ? widen4<T>(__ldg(reinterpret_cast<const uint2*>(row + at))) : zero4();
  } else {
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = at + i < size ? widen(row[at + i]) : 0.0f;
    return make_float4(values[0], values[1], values[2], values[3]);
  }
}

// The same of u of one query and head, rounded to z's dtype; zeros past the last head.
template <class T, bool kAligned>
__device__ __forceinline__ float4 load_u(const DeviceEsuAttentionParams& p, int64_t query,
                                         int64_t head, int64_t at) {
  const int64_t dim = p.dim;
  const int64_t size = head < p.heads ? dim : 0;
  const int64_t row = (query * p.heads + head) * dim;
  if (!p.u_is_float || sizeof(T) == sizeof(float)) {
    return load_quad<T, kAligned>(static_cast<const T*>(p.u) + row, at, size);
  }
  const float4 v = load_quad<float, kAligned>(static_cast<const float*>(p.u) + row, at, size);
  return make_float4(widen(narrow<T>(v.x)), widen(narrow<T>(v.y)), widen(narrow<T>(v.z)),
                     widen(narrow<T>(v.w)));
}

// Four heads' columns of a panel in shared memory: a lane's quad of each head.
using EsuHeadRows = float4[kEsuHeads][kWarp];

// By all threads; load(head, column) gives a quad.
template <class T, class Load>
__device__ __forceinline__ void fill_heads(EsuHeadRows& heads, const EsuGeometry& g, int panel,
                                           const Load& load) {
  const int lane = threadIdx.x % kWarp, head = threadIdx.x / kWarp;
  static_assert(kEsuWarps == kEsuHeads);
  if (lane < g.lanes) {
    heads[head][lane] = load(head, panel * g.lanes * 4 + lane_column<T>(lane, g.lanes));
  }
}

// sums[row][head] += this lane's columns of the products. Every dot product of a kernel adds its
// columns in this order, so that equal rows have equal sums.
__device__ __forceinline__ void add_products(const EsuHeadRows& heads, int lane,
                                             const float4 (&x)[kEsuRows],
                                             float (&sums)[kEsuRows][kEsuHeads]) {
#pragma unroll
  for (int head = 0; head < kEsuHeads; ++head) {
    const float4 y = heads[head][lane];
#pragma unroll
    for (int row = 0; row < kEsuRows; ++row) sums[row][head] = dot4(x[row], y, sums[row][head]);
  }
}

// The sums over the lanes of a row; lane l gets that of head l & 3.
__device__ __forceinline__ float sum_heads(const float (&sums)[kEsuHeads], int lanes) {
  const int lane = lane_index();
  const bool odd = lane & 1, high = lane & 2;
  const float low2 =
      (odd ? sums[1] : sums[0]) + __shfl_xor_sync(kAllLanes, odd ? sums[0] : sums[1], 1);
  const float high2 =
      (odd ? sums[3] : sums[2]) + __shfl_xor_sync(kAllLanes, odd ? sums[2] : sums[3], 1);
  float sum = (high ? high2 : low2) + __shfl_xor_sync(kAllLanes, high ? low2 : high2, 2);
  for (int offset = kEsuHeads; offset < lanes; offset *= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, offset);
  }
  return sum;
}

// The value that the lane of a head has, in the lanes of the same row.
__device__ __forceinline__ float of_head(float value, int head) {
  return __shfl_sync(kAllLanes, value, head, kEsuHeads);
}

// Over the lanes of a warp that have the same columns.
__device__ __forceinline__ float sum_streams(float value, int lanes) {
  for (int offset = lanes; offset < kWarp; offset *= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

// Adds up all threads' sums of their columns into `heads`, warp by warp. By all threads; ends with
// a barrier.
__device__ __forceinline__ void merge_heads(float4 (&sums)[kEsuHeads], EsuHeadRows& heads,
                                            int lanes) {
#pragma unroll
  for (float4& v : sums) {
    v = make_float4(sum_streams(v.x, lanes), sum_streams(v.y, lanes), sum_streams(v.z, lanes),
                    sum_streams(v.w, lanes));
  }
  const int lane = lane_index();
#pragma unroll 1
  for (int warp = 0; warp < kEsuWarps; ++warp) {
    if (warp == warp_index() && lane < lanes) {
#pragma unroll
      for (int head = 0; head < kEsuHeads; ++head) {
        if (warp > 0) add_scaled(1.0f, heads[head][lane], sums[head]);
        heads[head][lane] = sums[head];
      }
    }
    __syncthreads();
  }
}

// Column `at` of a head in what fill_heads() or merge_heads() wrote.
template <class T>
__device__ __forceinline__ float head_column(const EsuHeadRows& heads, int lanes, int head,
                                             int at) {
  return reinterpret_cast<const float*>(&heads[head][column_lane<T>(at, lanes)])[at % 4];
}

}  // namespace longclock
