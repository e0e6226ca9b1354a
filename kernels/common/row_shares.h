// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace longclock {

constexpr int64_t kSampledRows = 4096;

// Where to cut the rows [0, rows) of a table for threads that each add up all of some rows:
// [shares + 1], ascending, so that each range has about as much work. Rows are often numbered by
// how many look them up: even ranges would leave most to the first thread. sample: rows that
// positions looked up, kSampledRows of them evenly spaced, say; outside [0, rows): none. Each
// stands for positions / sample.size() of them. row_work: of a row that none looks up, in
// positions.
std::vector<int64_t> share_rows(std::vector<int64_t> sample, int64_t positions, int64_t rows,
                                double row_work, int64_t shares);

}  // namespace longclock
