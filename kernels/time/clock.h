// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/inline.h"

namespace longclock {

// A period below 2^31 as kernels divide by it: made on the host, read as constants.
struct Clock {
  uint32_t period;
  uint32_t reciprocal;  // 2^32 / period, rounded down
  uint32_t shift;       // 2^31 mod period
  double inverse;
};

LONGCLOCK_INLINE Clock make_clock(int64_t period) {
  const uint32_t p = static_cast<uint32_t>(period);
  return {p, 0xffffffffu / p, 0x80000000u % p, 1.0 / static_cast<double>(period)};
}

}  // namespace longclock
