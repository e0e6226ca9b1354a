// SPDX-License-Identifier: Apache-2.0
// Times on a clock: reduction by the period and the circular difference, over short arrays.
#pragma once

#include <bit>

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

// Division by a period below 2^31: for magnitudes below 2^31 the product with the reciprocal,
// rounded up, has the exact quotient in its upper bits (Granlund and Montgomery, 1994).
struct PeriodDivision {
  explicit PeriodDivision(int64_t period)
      : period(Vq{} + static_cast<uint64_t>(period)),
        reciprocal(Vq{} + ((uint64_t{1} << shift_of(period)) / static_cast<uint64_t>(period) + 1)),
        shift(shift_of(period)) {}
  static int shift_of(int64_t period) {
    return 31 + std::bit_width(static_cast<uint64_t>(period - 1));
  }
  // Of times below 2^31 with a sign: all bits of `negative` are set where there is one.
  Vq clock_time(Vq magnitude, Vq negative) const {
    const Vq quotient = multiply_low(magnitude, reciprocal) >> shift;
    const Vq rest = magnitude - multiply_low(quotient, period);
    return negative & (Vq)(rest != 0) ? period - rest : rest;
  }
  Vq period, reciprocal;
  int shift;
};

// out[i] = t[i * stride] mod period. Times of up to 31 bits and a sign take a vectorised way.
template <class Time>
inline void clock_times(const Time* t, int64_t stride, int64_t n, int64_t period, int32_t* out) {
  if (stride == 0) {  // broadcast
    const int32_t value = clock_time(*t, period);
    for (int64_t i = 0; i < n; ++i) out[i] = value;
    return;
  }
  const PeriodDivision division(period);
  Vq outside = {};
  int64_t i = 0;
  for (; stride == 1 && i + kWideLanes <= n; i += kWideLanes) {
    const Vq value = load_wide(t + i);
    const Vq negative = (Vq)((Vl)value < 0);
    const Vq magnitude = (value ^ negative) - negative;
    outside |= magnitude;
    store_narrow(division.clock_time(magnitude, negative), out + i);
  }
  uint64_t bits = 0;
  for (int lane = 0; lane < kWideLanes; ++lane) bits |= outside[lane];
  if (bits >> 31 != 0) i = 0;
  for (; i < n; ++i) out[i] = clock_time(t[i * stride], period);
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
