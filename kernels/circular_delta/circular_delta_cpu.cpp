// SPDX-License-Identifier: Apache-2.0
#include "circular_delta.h"

namespace longclock {

void circular_delta_cpu(const CircularDeltaParams& params, int64_t row_begin, int64_t row_end) {
  LONGCLOCK_CALL_LEVEL(circular_delta(params, row_begin, row_end));
}

}  // namespace longclock
