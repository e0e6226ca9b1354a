// SPDX-License-Identifier: Apache-2.0
// Rows of fp32, fp16 or bf16 in pieces of 16 bytes, the widest load of a thread.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "longclock/common/dtype.h"

namespace longclock {

// Elements of a piece: 4 of fp32, 8 of 16 bits.
template <class T>
constexpr int kVector16 = 16 / static_cast<int>(sizeof(T));

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(Float16 value) {
  return __half2float(__ushort_as_half(value.bits));
}
__device__ __forceinline__ float widen(BFloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}

// Rounds to nearest.
template <class T>
__device__ __forceinline__ T narrow(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else if constexpr (__is_same(T, Float16)) {
    return {__half_as_ushort(__float2half_rn(value))};
  } else {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
  }
}

template <class T>
__device__ __forceinline__ void widen16(const uint4& bits, float (&out)[kVector16<T>]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      out[i] = __uint_as_float(words[i]);
    } else {
      out[2 * i] = widen(T{static_cast<uint16_t>(words[i])});
      out[2 * i + 1] = widen(T{static_cast<uint16_t>(words[i] >> 16)});
    }
  }
}

template <class T>
__device__ __forceinline__ uint4 narrow16(const float (&values)[kVector16<T>]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(values[i]);
    } else {
      words[i] = narrow<T>(values[2 * i]).bits |
                 static_cast<uint32_t>(narrow<T>(values[2 * i + 1]).bits) << 16;
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Elements [at, at + kVector16) of a row of `size`; zeros past its end. kAligned: pieces of the row
// lie at multiples of 16 bytes and none is cut by its end.
template <class T, bool kAligned>
__device__ __forceinline__ uint4 load16(const T* __restrict__ row, int64_t at, int64_t size) {
  if constexpr (kAligned) {
    return at < size ? __ldg(reinterpret_cast<const uint4*>(row + at)) : make_uint4(0, 0, 0, 0);
  } else {
    uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < kVector16<T>; ++i) {
      if (at + i >= size) continue;
      if constexpr (sizeof(T) == 4) {
        words[i] = __float_as_uint(__ldg(row + at + i));
      } else {
        const uint32_t bits = __ldg(reinterpret_cast<const uint16_t*>(row) + at + i);
        words[i / 2] |= bits << (i % 2 * 16);
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// The counterpart of load16.
template <class T, bool kAligned>
__device__ __forceinline__ void store16(T* __restrict__ row, int64_t at, int64_t size,
                                        const float (&values)[kVector16<T>]) {
  if constexpr (kAligned) {
    if (at < size) *reinterpret_cast<uint4*>(row + at) = narrow16<T>(values);
  } else {
#pragma unroll
    for (int i = 0; i < kVector16<T>; ++i) {
      if (at + i < size) row[at + i] = narrow<T>(values[i]);
    }
  }
}

// Whether rows, `stride` elements apart, suit kAligned.
inline bool aligned16(const void* data, int64_t stride, int64_t size, DType dtype) {
  const int64_t bytes = size_of(dtype);
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * bytes % 16 == 0 &&
         size * bytes % 16 == 0;
}

}  // namespace longclock
