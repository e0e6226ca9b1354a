// SPDX-License-Identifier: Apache-2.0
#include "longclock/circular_delta/circular_delta.h"

namespace longclock {

void circular_delta_cpu(const CircularDeltaParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(circular_delta(params, begin, end));
}

}  // namespace longclock
