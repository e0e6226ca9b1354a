// SPDX-License-Identifier: Apache-2.0
// Rows of queries and of gradients by a warp, four columns a lane.
#pragma once

#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/search/device_search.h"

namespace longclock {

constexpr int kLaneColumns = 4;
constexpr int kPanel = kWarp * kLaneColumns;  // columns of a warp

inline int64_t column_panels(const DeviceSearchParams& p) {
  return (p.behaviours.dim + kPanel - 1) / kPanel;
}

// Whether queries suit kAligned below: D is a multiple of 4, and the query of what one load takes.
inline bool columns_are_aligned(const DeviceSearchParams& p) {
  return p.behaviours.dim % kLaneColumns == 0 && reinterpret_cast<uintptr_t>(p.query) % 16 == 0;
}

// Columns [d, d + 4) of query q as they lie: fp32 or 16 bits.
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

}  // namespace longclock
