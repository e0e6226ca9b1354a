// SPDX-License-Identifier: Apache-2.0
#include "longclock/esu_attention/esu_attention.h"

namespace longclock {

void esu_attention_cpu(const EsuAttentionParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(esu_attention(params, begin, end));
}

void esu_attention_backward_cpu(const EsuAttentionBackwardParams& params, int64_t begin,
                                int64_t end) {
  LONGCLOCK_CALL_LEVEL(esu_attention_backward(params, begin, end));
}

void esu_table_grad_cpu(const EsuTableGradParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(esu_table_grad(params, begin, end));
}

}  // namespace longclock
