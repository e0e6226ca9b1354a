// SPDX-License-Identifier: Apache-2.0
#include "clock_gsu.h"

namespace longclock {

void clock_gsu_cpu(const ClockGsuParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_BF16_LEVEL(clock_gsu(params, begin, end));
}

void clock_gsu_merge_cpu(const ClockGsuParams& p, int64_t begin, int64_t end) {
  const int64_t of_query = p.parts * p.k;
  for (int64_t q = begin; q < end; ++q) {
    write_topk_of_parts(p.entries + q * of_query, of_query, p.k, p.scores + q * p.k,
                        p.indices + q * p.k);
  }
}

}  // namespace longclock
