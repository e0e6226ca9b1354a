// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <tuple>
#include <vector>

#include "common/checks.h"
#include "common/parallel.h"
#include "common/time_table_cache.h"

namespace longclock {

// The gradient of w1, b1, w2, b2 from that of s, [count], at the deltas of every clock, [C, count].
std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeTermArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count);

// Sets time->lookups where tables of s pay; they live as long as what is returned. Neighbours among
// the clocks whose periods divide each other have one table.
using TimeTables = std::vector<std::shared_ptr<const TimeTable>>;
TimeTables find_time_tables(TimeTerm* time, int64_t evaluations);

}  // namespace longclock
