// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../kernels/esu_attention/esu_attention.h"
#include "common/checks.h"

namespace longclock {

// What the schemas of esu_attention and its backward share.
#define LONGCLOCK_ESU_PARAMETERS                                                      \
  const Tensor &u, const Tensor &z, const OptionalTensor &ids, const Tensor &z_time,  \
      const Tensor &query_time, const Tensor &w1, const Tensor &b1, const Tensor &w2, \
      const Tensor &b2, const OptionalTensor &valid, int64_t period, double unit
#define LONGCLOCK_ESU_ARGUMENTS u, z, ids, z_time, query_time, w1, b1, w2, b2, valid, period, unit

// The arguments with their shapes and dtypes checked, all but u in the kernels' form. Nothing of
// them is read. Holds what its pointers point to.
struct EsuArguments {
  TimeMlpArguments mlp;
  Tensor z, ids, z_time, query_time, valid;
  EsuAttentionCommonParams params{};  // without outputs
  int64_t queries;

  EsuArguments(const char* op, LONGCLOCK_ESU_PARAMETERS);
};

// The gradient, and what the forward kept.
struct EsuBackwardArguments {
  Tensor grad, context, softmax;

  EsuBackwardArguments(const char* op, const EsuArguments& forward, const Tensor& grad,
                       const Tensor& context, const Tensor& softmax);
};

// The arguments of esu_attention_table_grad, checked and contiguous.
struct EsuTableGradArguments {
  Tensor z_grad, ids, valid;
  EsuTableGradParams params{};  // without table_grad

  EsuTableGradArguments(const char* op, const Tensor& z_grad, const Tensor& ids,
                        const OptionalTensor& valid, int64_t table_rows);
};

}  // namespace longclock
