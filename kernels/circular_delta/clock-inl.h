// SPDX-License-Identifier: Apache-2.0
// Times on a clock: reduction by the period and the circular difference, over short arrays.
#pragma once

#include "../common/simd-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline int32_t clock_time(int64_t t, int64_t period) {
  const int64_t r = t % period;
  return static_cast<int32_t>(r < 0 ? r + period : r);
}

inline int32_t circular_delta(int32_t a, int32_t b, int32_t period) {
  const int32_t x = a > b ? a - b : b - a;
  return x < period - x ? x : period - x;
}

// out[i] = t[i * stride] mod period. Times within 32 bits take a vectorised way: a quotient in
// double that is off by one at most, put right after.
template <class Time>
inline void clock_times(const Time* t, int64_t stride, int64_t n, int64_t period, int32_t* out) {
  if (stride == 0) {  // broadcast
    const int32_t value = clock_time(*t, period);
    for (int64_t i = 0; i < n; ++i) out[i] = value;
    return;
  }
  bool narrow = true;
  if constexpr (sizeof(Time) == 8) {
    int64_t outside = 0;
    for (int64_t i = 0; i < n; ++i) outside |= t[i * stride] ^ static_cast<int32_t>(t[i * stride]);
    narrow = outside == 0;
  }
  if (!narrow) {
    for (int64_t i = 0; i < n; ++i) out[i] = clock_time(t[i * stride], period);
    return;
  }
  const double inverse = 1.0 / static_cast<double>(period);
  const uint32_t p = static_cast<uint32_t>(period);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t value = static_cast<int32_t>(t[i * stride]);
    const int32_t quotient = static_cast<int32_t>(static_cast<double>(value) * inverse);
    // In (-2 period, 2 period): the quotient is truncated towards zero and off by one at most.
    int64_t r = static_cast<int64_t>(value) - static_cast<int64_t>(quotient) * p;
    r += r < 0 ? p : 0;
    r += r < 0 ? p : 0;
    r -= r >= p ? p : 0;
    out[i] = static_cast<int32_t>(r);
  }
}

inline void clock_times(const IntArray& t, int64_t offset, int64_t stride, int64_t n,
                        int64_t period, int32_t* out) {
  if (t.is_64) {
    clock_times(static_cast<const int64_t*>(t.data) + offset, stride, n, period, out);
  } else {
    clock_times(static_cast<const int32_t*>(t.data) + offset, stride, n, period, out);
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
