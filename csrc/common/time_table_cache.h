// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>

#include "longclock/time/time_term.h"

namespace longclock {

// The table of s of these clocks, or of one, by the deltas of that with the longest period, which
// those of the others divide; or none where it does not pay: where it would not fit a
// second-level cache, or `evaluations` of s, with those of earlier calls, are few beside its size.
// The last few tables are kept and told apart by the parameters' values, so a table costs a call
// nothing while nobody trains. May be called from any thread.
std::shared_ptr<const TimeTable> time_table(std::span<const TimeClock> clocks, int64_t evaluations);

}  // namespace longclock
