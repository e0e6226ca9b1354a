// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/dtype.h"
#include "longclock/common/simd_level.h"

namespace longclock {

LONGCLOCK_DECLARE_LEVELS(bool all_between(const IntArray&, int64_t begin, int64_t end, int64_t low,
                                          int64_t high))

// Whether integers [begin, end) are all from low to high, high - low being below 2^63. False where
// low is above high.
bool all_between_cpu(const IntArray& values, int64_t begin, int64_t end, int64_t low, int64_t high);

}  // namespace longclock
