// SPDX-License-Identifier: Apache-2.0
// Times on a clock, on the device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace longclock {

// t mod period in [0, period), period < 2^31. A 64-bit division costs several times a 32-bit one.
__device__ __forceinline__ int32_t clock_time(int64_t t, int32_t period) {
  const int32_t narrow = static_cast<int32_t>(t);
  const int32_t r =
      narrow == t ? narrow % period : static_cast<int32_t>(t % static_cast<int64_t>(period));
  return r < 0 ? r + period : r;
}

__device__ __forceinline__ int32_t circular_delta(int32_t a, int32_t b, int32_t period) {
  const int32_t x = abs(a - b);
  return min(x, period - x);
}

}  // namespace longclock
