// SPDX-License-Identifier: Apache-2.0
// Times on a clock, on the device.
#pragma once

#include <cuda_runtime.h>

#include "longclock/time/clock.h"

namespace longclock {

// For times beyond 32 bits, by division: slower, in fewer registers.
__device__ __forceinline__ int32_t divided_clock_time(const Clock& clock, int64_t t) {
  const int64_t r = t % static_cast<int64_t>(clock.period);
  return static_cast<int32_t>(r < 0 ? r + clock.period : r);
}

// For times beyond 32 bits, by quotients in double: the first may be off by as much as t loses as a
// double, over the period; the second, of what is left, is off by one at most.
__device__ __forceinline__ int32_t far_clock_time(const Clock& clock, int64_t t) {
  const int64_t period = clock.period;
#pragma unroll 1
  for (int i = 0; i < 2; ++i) {
    t -= static_cast<int64_t>(floor(static_cast<double>(t) * clock.inverse)) * period;
  }
  if (t < 0) t += period;
  return static_cast<int32_t>(t >= period ? t - period : t);
}

// t mod period, in [0, period). Within 32 bits a multiplication stands for the division: u / period
// is within 1 of u * (2^32 / period) / 2^32.
// kFewRegisters: how times beyond 32 bits are reduced.
template <bool kFewRegisters = false>
__device__ __forceinline__ int32_t clock_time(const Clock& clock, int64_t t) {
  if (static_cast<int32_t>(t) != t) {
    return kFewRegisters ? divided_clock_time(clock, t) : far_clock_time(clock, t);
  }
  const uint32_t u = static_cast<uint32_t>(t) + 0x80000000u;  // positive; 2^31 too large
  uint32_t r = u - __umulhi(u, clock.reciprocal) * clock.period;
  r = min(r, r - clock.period);  // the smaller one did not wrap around
  r += clock.period - clock.shift;
  return static_cast<int32_t>(min(r, r - clock.period));
}

// min(x, period - x) with x = |a - b|, of times on the clock.
__device__ __forceinline__ int32_t clock_delta(const Clock& clock, int32_t a, int32_t b) {
  const int32_t x = abs(a - b);
  return min(x, static_cast<int32_t>(clock.period) - x);
}

}  // namespace longclock
