// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "longclock/time/time_mlp.h"
#include "longclock/time/time_table.h"

namespace longclock {

// The table of s for these parameters, or none where it does not pay: where it would not fit a
// second-level cache, or `evaluations` of s, with those of earlier calls, are few beside its size.
// The last few tables are kept and told apart by the parameters' values, so a table costs a call
// nothing while nobody trains. May be called from any thread.
std::shared_ptr<const TimeTable> time_table(const TimeMlp& mlp, int64_t period,
                                            int64_t evaluations);

}  // namespace longclock
