// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/inline.h"

namespace longclock {

// In place of a period: the time that has passed, which no circle brings back. At most
// kLongestElapsed seconds of it are told apart, and of those the kElapsedBits highest bits that
// count, so that there are few of them: kElapsedPlaces.
constexpr int64_t kElapsed = 0;
constexpr int64_t kLongestElapsed = 0x7fffffff;
constexpr int kElapsedBits = 7;
constexpr int64_t kElapsedPlaces = 31 * (int64_t{1} << (kElapsedBits - 1)) + 1;

// Between seconds that are told apart and their place among them, by the bits of a float: an
// exponent, and the bits behind the first. Below 2^6 seconds, some places have no whole second.
constexpr int kElapsedShift = 23 - (kElapsedBits - 1);
constexpr int32_t kElapsedBefore = (0x3f800000 >> kElapsedShift) - 1;  // 1 second is place 1
LONGCLOCK_INLINE int32_t elapsed_place(int32_t seconds) {
  const float exact = static_cast<float>(seconds);
  int32_t bits;
  __builtin_memcpy(&bits, &exact, sizeof(bits));
  const int32_t place = (bits >> kElapsedShift) - kElapsedBefore;
  return place < 0 ? 0 : place;
}
LONGCLOCK_INLINE int32_t elapsed_seconds(int32_t place) {
  const int32_t bits = place == 0 ? 0 : (place + kElapsedBefore) << kElapsedShift;
  float exact;
  __builtin_memcpy(&exact, &bits, sizeof(exact));
  return static_cast<int32_t>(exact);
}

// How long apart two times are, of those seconds; any integers may be compared.
LONGCLOCK_INLINE int32_t elapsed_delta(int64_t a, int64_t b) {
  const uint64_t x = a < b ? static_cast<uint64_t>(b) - static_cast<uint64_t>(a)
                           : static_cast<uint64_t>(a) - static_cast<uint64_t>(b);
  const uint32_t seconds =
      static_cast<uint32_t>(x < uint64_t{kLongestElapsed} ? x : uint64_t{kLongestElapsed});
#ifdef __CUDA_ARCH__
  const int dropped = 32 - kElapsedBits - __clz(static_cast<int>(seconds));
#else
  const int dropped = 32 - kElapsedBits - __builtin_clz(seconds | 1);
#endif
  return static_cast<int32_t>(dropped <= 0 ? seconds : seconds >> dropped << dropped);
}

// A period below 2^31 as kernels divide by it: made on the host, read as constants. kElapsed has
// nothing to divide by.
struct Clock {
  uint32_t period;
  uint32_t reciprocal;  // 2^32 / period, rounded down
  uint32_t shift;       // 2^31 mod period
  double inverse;
};

LONGCLOCK_INLINE Clock make_clock(int64_t period) {
  if (period == kElapsed) return {};
  const uint32_t p = static_cast<uint32_t>(period);
  return {p, 0xffffffffu / p, 0x80000000u % p, 1.0 / static_cast<double>(period)};
}

}  // namespace longclock
