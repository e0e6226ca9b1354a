// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../common/simd_level.h"
#include "../gsu_score/behaviours.h"

namespace longclock {

// alpha_ik = u_i . z_k + s(delta_k / unit), p_i = softmax over the valid k,
// context_i = sum over k of p_ik [z_k ; phi(delta_k / unit)].
struct EsuAttentionParams {
  Behaviours behaviours;   // positions q * K + k; mask is `valid`
  int64_t z_query_stride;  // elements, without ids
  IntArray query_time;     // [Q], seconds
  int64_t heads;           // n
  int64_t k;               // K
  const float* u;          // [Q, n, round_up(L, 16)], padded with zeros
  int64_t u_stride;        // elements from head to head, a multiple of 16
  float* context;          // [Q, n, L + 4]; 0 where a query has no valid behaviour
  float* softmax;          // [Q, n, 2], the largest alpha, and the log of the sum of
                           // exp(alpha - largest); kept for the backward
};

// Recomputes alpha from z, in the one pass over z that the gradients need anyway.
struct EsuAttentionBackwardParams {
  EsuAttentionParams forward;  // with its outputs
  const float* grad;           // [Q, n, L + 4]
  float* u_grad;               // [Q, n, L], or none
  void* z_grad;                // [Q, K, L], z's dtype, 0 where not valid; or none
  float* s_grad;               // [Q, K], the gradient of s; or none
  int32_t* s_delta;            // [Q, K], seconds
};

LONGCLOCK_DECLARE_LEVELS(void esu_attention(const EsuAttentionParams&, int64_t begin, int64_t end);
                         void esu_attention_backward(const EsuAttentionBackwardParams&,
                                                     int64_t begin, int64_t end))

// Queries [begin, end).
void esu_attention_cpu(const EsuAttentionParams& params, int64_t begin, int64_t end);
void esu_attention_backward_cpu(const EsuAttentionBackwardParams& params, int64_t begin,
                                int64_t end);

}  // namespace longclock
