// SPDX-License-Identifier: Apache-2.0
#include "longclock/hamming_gsu/hamming_gsu.h"

namespace longclock {

void hamming_gsu_cpu(const HammingGsuParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(hamming_gsu(params, begin, end));
}

}  // namespace longclock
