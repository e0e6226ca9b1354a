// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "../../kernels/time_similarity/time_similarity.h"

namespace longclock {

// s of every delta from 0 to period / 2, with the bits that the kernels would compute on the spot.
using TimeTable = std::shared_ptr<const std::vector<float>>;

// The table for these parameters, or none where it does not pay: where it would not fit a
// second-level cache, or `evaluations` of s, with those of earlier calls, are few beside its size.
// The last few tables are kept and told apart by the parameters' values, so a table costs a call
// nothing while nobody trains. May be called from any thread.
TimeTable time_table(const TimeMlp& mlp, int64_t period, int64_t evaluations);

}  // namespace longclock
