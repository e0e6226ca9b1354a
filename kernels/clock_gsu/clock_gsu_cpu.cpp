// SPDX-License-Identifier: Apache-2.0
#include "longclock/clock_gsu/clock_gsu.h"

namespace longclock {

void clock_gsu_cpu(const DotSearchParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_BF16_LEVEL(clock_gsu(params, begin, end));
}

}  // namespace longclock
