// SPDX-License-Identifier: Apache-2.0
// Circular differences of times, over short arrays: the difference less the nearest multiple of the
// period, in double.
#pragma once

#include "longclock/common/lanes-inl.h"
#include "longclock/common/memory-inl.h"
#include "longclock/time/clock.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline int64_t clock_time(int64_t t, int64_t period) {
  const int64_t r = t % period;
  return r < 0 ? r + period : r;
}

// Of any two times.
inline int64_t circular_delta(int64_t a, int64_t b, int64_t period) {
  const int64_t x = clock_time(a, period) - clock_time(b, period), forward = x < 0 ? -x : x;
  return min_of(forward, period - forward);
}

// Times in [-2^50, 2^50) as doubles, all of them larger by as much: exact, as are their
// differences. `outside` gets a bit from 2^51 on where a time is not in there.
inline Vd shifted_times(Vq t, Vq* outside) {
  const Vq shifted = t + (uint64_t{1} << 50);  // in [0, 2^51)
  *outside |= shifted;
  return (Vd)(shifted | (Vq)(Vd{} + 0x1p52));
}
inline bool any_outside(Vq outside) { return bitmask((Vl)(outside >> 51 != 0)) != 0; }

// Exact for differences below 2^51. The quotient is then off by less than 1 / (2 * period), which
// takes it past a half only if it is one, where the integers on both sides serve.
class ClockDifference {
 public:
  explicit ClockDifference(int64_t period)
      : period_(Vd{} + static_cast<double>(period)),
        inverse_(Vd{} + 1.0 / static_cast<double>(period)) {}
  Vd operator()(Vd difference) const {
    constexpr double kRound = 0x1.8p52;  // a sum with it has no room for a fraction
    const Vd turns = fma(difference, inverse_, Vd{} + kRound) - kRound;
    return magnitude(fma(-turns, period_, difference));
  }

 private:
  Vd period_, inverse_;
};

// The difference itself, as elapsed_delta() keeps it: the same bits of the double.
struct ElapsedDifference {
  Vd operator()(Vd difference) const {
    constexpr uint64_t kKept = ~uint64_t{0} << (52 - (kElapsedBits - 1));
    const Vd seconds = magnitude(difference), longest = Vd{} + static_cast<double>(kLongestElapsed);
    return (Vd)((Vq)(seconds < longest ? seconds : longest) & kKept);
  }
};

// t[0], t[stride], ...; zeros after the n-th.
template <class Time>
inline Vq load_times(const Time* t, int64_t stride, int64_t n) {
  if (stride == 1 && n >= kWideLanes) return load_wide(t);
  if (stride == 0) return Vq{} + static_cast<uint64_t>(int64_t{*t});
  int64_t times[kWideLanes] = {};
  for (int64_t i = 0; i < min_of(n, kWideLanes); ++i) times[i] = t[i * stride];
  return load_wide(times);
}

// out[i] = the difference of a[i * a_stride] and b[i * b_stride] for i < n: difference(their
// difference), or delta(a, b) of any two times.
template <class A, class B, class Out, class Difference, class Delta>
inline void time_deltas(const A* a, int64_t a_stride, const B* b, int64_t b_stride, int64_t n,
                        const Difference& difference, const Delta& delta, Out* out) {
  Vq outside = {};
  for (int64_t i = 0; i < n; i += kWideLanes) {
    const Vd x = shifted_times(load_times(a + i * a_stride, a_stride, n - i), &outside);
    const Vd y = shifted_times(load_times(b + i * b_stride, b_stride, n - i), &outside);
    store_integers(difference(x - y), min_of(n - i, kWideLanes), out + i);
  }
  if (!any_outside(outside)) return;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<Out>(delta(a[i * a_stride], b[i * b_stride]));
  }
}

template <class A, class B, class Out>
inline void circular_deltas(const A* a, int64_t a_stride, const B* b, int64_t b_stride, int64_t n,
                            int64_t period, Out* out) {
  time_deltas(
      a, a_stride, b, b_stride, n, ClockDifference(period),
      [&](int64_t x, int64_t y) { return circular_delta(x, y, period); }, out);
}

// As the clock of `period` sees it, which may be kElapsed.
template <class A, class B>
inline void clock_deltas(const A* a, int64_t a_stride, const B* b, int64_t b_stride, int64_t n,
                         int64_t period, int32_t* out) {
  if (period != kElapsed) return circular_deltas(a, a_stride, b, b_stride, n, period, out);
  time_deltas(
      a, a_stride, b, b_stride, n, ElapsedDifference(),
      [](int64_t x, int64_t y) { return elapsed_delta(x, y); }, out);
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
