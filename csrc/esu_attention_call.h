// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/argument_list.h"
#include "common/checks.h"
#include "longclock/esu_attention/esu_attention.h"
#include "search/features.h"
#include "search/layout.h"

namespace longclock {

// The arguments of esu_attention that its backward takes as well. Without positions, z is [Q, K,
// L], or the table [N, L] with ids [Q, K]; z_time and valid are [Q, K]. With positions [Q, K],
// which lie among the T behaviours of all histories, z is [T, L], or the table with ids [T]; z_time
// is [T]. Features are further columns behind those of z; u has the columns of all.
#define LONGCLOCK_ESU_ROWS(X) \
  X(Tensor, u)                \
  X(Tensor, z)                \
  X(OptionalTensor, ids) X(Tensor, z_time) X(Tensor, query_time) X(OptionalTensor, positions)
#define LONGCLOCK_ESU(X) \
  LONGCLOCK_ESU_ROWS(X)  \
  LONGCLOCK_MLP(X) X(OptionalTensor, valid) LONGCLOCK_CLOCKS(X) LONGCLOCK_FEATURES(X)

constexpr BehaviourWords kEsuWords = {"z", "z_time", "L"};

struct EsuArguments {
  LONGCLOCK_ESU(LONGCLOCK_FIELD)
};

#define LONGCLOCK_ESU_ARGUMENTS \
  ::longclock::EsuArguments { LONGCLOCK_ESU(LONGCLOCK_NAME) }

// The arguments with their shapes and dtypes checked, all but u in the kernels' form. Nothing of
// them is read. Holds what its pointers point to.
struct EsuInputs {
  TimeTermArguments mlp;
  Tensor z, ids, z_time, query_time, positions, valid;
  FeatureInputs features;
  EsuAttentionCommonParams params{};  // without outputs
  int64_t queries;
  int64_t behaviour_count = 0;  // T, with positions

  EsuInputs(const char* op, const EsuArguments& arguments);

 private:
  void read_widths(const char* op, const EsuArguments& a);
  void read_own(const char* op, const EsuArguments& a);    // without positions
  void read_found(const char* op, const EsuArguments& a);  // with them
};

// The arguments of esu_attention_positions, but for found [Q, K], or [S, C, K]: the layout that it
// was found in.
#define LONGCLOCK_ESU_LAYOUT(X) X(Tensor, key_time) X(Tensor, query_time) LONGCLOCK_SEQUENCES(X)

// The arguments checked but for their values.
struct EsuPositionsInputs : LayoutInputs {
  Tensor found;
  int64_t k;  // K

  EsuPositionsInputs(const char* op, const LayoutArguments& layout, const Tensor& found);
};

// The gradient, and what the forward kept.
struct EsuBackwardArguments {
  Tensor grad, context, softmax;

  EsuBackwardArguments(const char* op, const EsuInputs& forward, const Tensor& grad,
                       const Tensor& context, const Tensor& softmax);
};

// The arguments of esu_attention_table_grad, checked and contiguous but for z_grad, which may be
// some columns of wider rows.
struct EsuTableGradArguments {
  Tensor z_grad, ids, positions, valid;
  EsuTableGradParams params{};  // without table_grad

  EsuTableGradArguments(const char* op, const Tensor& z_grad, const Tensor& ids,
                        const OptionalTensor& positions, const OptionalTensor& valid,
                        int64_t table_rows);
};

}  // namespace longclock
