// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "longclock/common/threads.h"
#include "longclock/time/time_term.h"

namespace longclock {

// The table of s of these clocks, or of one, by the deltas of that with the longest period, which
// those of the others divide; or none where it does not pay: where it would not fit a
// second-level cache, or `evaluations` of s, with those of earlier calls, are few beside its size.
// The last few tables are kept and told apart by the parameters' values, so a table costs a call
// nothing while nobody trains. May be called from any thread.
std::shared_ptr<const TimeTable> time_table(std::span<const TimeClock> clocks, int64_t evaluations,
                                            const Threads& threads);

// Sets time->lookups where tables of s pay; they live as long as what is returned. Neighbours among
// the clocks whose periods divide each other have one table.
using TimeTables = std::vector<std::shared_ptr<const TimeTable>>;
TimeTables find_time_tables(TimeTerm* time, int64_t evaluations, const Threads& threads);

// The same for a search, which asks nothing of the clocks but s.
TimeTables find_search_tables(TimeTerm* time, int64_t evaluations, const Threads& threads);

}  // namespace longclock
