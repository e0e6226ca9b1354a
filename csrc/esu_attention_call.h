// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/argument_list.h"
#include "common/checks.h"
#include "longclock/esu_attention/esu_attention.h"

namespace longclock {

// The arguments of esu_attention that its backward takes as well. z and ids as in a search: [Q, K,
// L], or the table [N, L] with ids [Q, K].
#define LONGCLOCK_ESU_ROWS(X) \
  X(Tensor, u) X(Tensor, z) X(OptionalTensor, ids) X(Tensor, z_time) X(Tensor, query_time)
#define LONGCLOCK_ESU(X) \
  LONGCLOCK_ESU_ROWS(X) LONGCLOCK_MLP(X) X(OptionalTensor, valid) X(int64_t, period) X(double, unit)

struct EsuArguments {
  LONGCLOCK_ESU(LONGCLOCK_FIELD)
};

#define LONGCLOCK_ESU_ARGUMENTS \
  ::longclock::EsuArguments { LONGCLOCK_ESU(LONGCLOCK_NAME) }

// The arguments with their shapes and dtypes checked, all but u in the kernels' form. Nothing of
// them is read. Holds what its pointers point to.
struct EsuInputs {
  TimeMlpArguments mlp;
  Tensor z, ids, z_time, query_time, valid;
  EsuAttentionCommonParams params{};  // without outputs
  int64_t queries;

  EsuInputs(const char* op, const EsuArguments& arguments);
};

// The gradient, and what the forward kept.
struct EsuBackwardArguments {
  Tensor grad, context, softmax;

  EsuBackwardArguments(const char* op, const EsuInputs& forward, const Tensor& grad,
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
