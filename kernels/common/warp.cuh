// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// What assert() calls, in builds with NDEBUG as well.
extern "C" __device__ __attribute__((noreturn)) void __assertfail(const char* message,
                                                                  const char* file, unsigned line,
                                                                  const char* function,
                                                                  size_t char_size);

namespace longclock {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % kWarp); }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x / kWarp); }

// The sum over the warp, in every lane; always in the same order.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

// The same of a count, the largest and the smallest number: an instruction each from sm_80 on.
__device__ __forceinline__ int warp_count(int value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_add_sync(kAllLanes, value);
#else
  return warp_sum(value);
#endif
}
__device__ __forceinline__ uint32_t warp_max(uint32_t value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(kAllLanes, value);
#else
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
#endif
}
__device__ __forceinline__ uint32_t warp_min(uint32_t value) { return ~warp_max(~value); }

// Ends the launch with an error that carries the message: for LONGCLOCK_CHECK=1.
__device__ __forceinline__ void device_check(bool holds, const char* message, const char* op) {
  if (!holds) __assertfail(message, op, 0, "LONGCLOCK_CHECK", sizeof(char));
}

}  // namespace longclock
