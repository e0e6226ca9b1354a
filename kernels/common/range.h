// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/dtype.h"

namespace longclock {

struct RangeParams {
  IntArray values;
  int64_t low, high;  // high - low is below 2^63
};

// Whether integers [begin, end) are all from low to high: none is where low is above high.
bool all_between_cpu(const RangeParams& params, int64_t begin, int64_t end);

}  // namespace longclock
