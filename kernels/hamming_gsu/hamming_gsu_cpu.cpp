// SPDX-License-Identifier: Apache-2.0
#include "hamming_gsu.h"

namespace longclock {

void hamming_gsu_cpu(const HammingGsuParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(hamming_gsu(params, begin, end));
}

void hamming_gsu_merge_cpu(const HammingGsuParams& p, int64_t begin, int64_t end) {
  const int64_t of_query = p.parts * p.k;
  for (int64_t q = begin; q < end; ++q) {
    write_topk_of_parts(p.entries + q * of_query, of_query, p.k, p.scores + q * p.k,
                        p.indices + q * p.k);
  }
}

}  // namespace longclock
