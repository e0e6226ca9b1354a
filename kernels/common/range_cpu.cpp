// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/range.h"

namespace longclock {

bool all_between_cpu(const IntArray& values, int64_t begin, int64_t end, int64_t low,
                     int64_t high) {
  if (low > high) return begin >= end;
  LONGCLOCK_CALL_LEVEL(all_between(values, begin, end, low, high));
}

}  // namespace longclock
