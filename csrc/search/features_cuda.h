// SPDX-License-Identifier: Apache-2.0
// Features as the arguments of a CUDA call.
#pragma once

#include "common/cuda_call.h"
#include "search/features.h"

namespace longclock {

inline void check_feature_devices(const CudaCall& call, const BehaviourWords& words,
                                  const OptionalTensorList& given_tables,
                                  const OptionalTensorList& given_ids) {
  const TensorList &tables = all_of(given_tables), &ids = all_of(given_ids);
  for (size_t f = 0; f < tables.size(); ++f) {
    call.check_device(table_name(words, f).c_str(), tables[f]);
    if (f < ids.size()) call.check_device(ids_name(f).c_str(), ids[f]);
  }
}

inline void announce_features(CudaCall& call, const FeatureInputs& features) {
  for (const Tensor& table : features.tables) call.reads(table);
  for (const Tensor& ids : features.ids) call.reads(ids);
}

}  // namespace longclock
