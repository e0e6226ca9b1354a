// SPDX-License-Identifier: Apache-2.0
#include "longclock/pack_signs/pack_signs.h"

namespace longclock {

void pack_signs_cpu(const PackSignsParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(pack_signs(params, begin, end));
}

}  // namespace longclock
