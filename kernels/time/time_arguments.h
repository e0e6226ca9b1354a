// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "longclock/time/time_term.h"

namespace longclock {

// Sets the clocks of s(), checked: a period, 0 for the time elapsed, and a unit of each.
void read_clocks(const char* op, std::span<const int64_t> periods, std::span<const double> units,
                 TimeTerm* time);
// Points the clocks to their parameters, one clock's after the other's: w1 [C, hidden, 4], b1 and
// w2 [C, hidden], b2 [C].
void read_parameters(const float* w1, const float* b1, const float* w2, const float* b2, int hidden,
                     TimeTerm* time);

}  // namespace longclock
