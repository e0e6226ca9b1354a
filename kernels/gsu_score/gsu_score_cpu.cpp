// SPDX-License-Identifier: Apache-2.0
#include "longclock/gsu_score/gsu_score.h"

namespace longclock {

void gsu_score_cpu(const GsuScoreParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_BF16_LEVEL(gsu_score(params, begin, end));
}

void gsu_score_query_grad_cpu(const GsuScoreBackwardParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_BF16_LEVEL(gsu_score_query_grad(params, begin, end));
}

void gsu_score_key_grad_cpu(const GsuScoreBackwardParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_BF16_LEVEL(gsu_score_key_grad(params, begin, end));
}

void gsu_score_table_grad_cpu(const GsuScoreBackwardParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_BF16_LEVEL(gsu_score_table_grad(params, begin, end));
}

void gsu_score_s_grad_cpu(const GsuScoreBackwardParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_BF16_LEVEL(gsu_score_s_grad(params, begin, end));
}

}  // namespace longclock
