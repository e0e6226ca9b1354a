// SPDX-License-Identifier: Apache-2.0
// Further columns of every behaviour, behind those of its row.
#pragma once

#include <string>
#include <vector>

#include "common/argument_list.h"
#include "common/checks.h"
#include "longclock/search/behaviours.h"

namespace longclock {

// Tables [N, F], and ids of the behaviours' times' shape; or rows [positions, F], and ids without
// elements. What is compared with behaviours has the columns of all.
#define LONGCLOCK_FEATURES(X)     \
  X(OptionalTensorList, features) \
  X(OptionalTensorList, feature_ids)

// Where there are none the lists are None: a package of AOTInductor loses one that is empty.
inline const TensorList& all_of(const OptionalTensorList& list) {
  static const TensorList none;
  return list ? *list : none;
}

// What an op calls the rows of behaviours and their times, and the letter of a row's width.
struct BehaviourWords {
  const char* rows;
  const char* time;
  const char* width;
};

// What a caller calls the table of feature f, and its ids: the rows are a tuple, and the first is
// that of the behaviours themselves.
std::string table_name(const BehaviourWords& words, size_t f);
std::string ids_name(size_t f);

// The columns of all features; each must be a matrix.
int64_t feature_columns(const char* op, const BehaviourWords& words,
                        const OptionalTensorList& tables);

// The features, checked but for the values of ids: what Behaviours points to.
struct FeatureInputs {
  TensorList tables, ids;

  // rows: those of the behaviours themselves. time: that of every behaviour.
  void read(const char* op, const BehaviourWords& words, const Tensor& rows, const Tensor& time,
            const OptionalTensorList& tables_in, const OptionalTensorList& ids_in,
            Behaviours* behaviours);
};

}  // namespace longclock
