// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/row_shares.h"

#include <algorithm>

namespace longclock {

std::vector<int64_t> share_rows(std::vector<int64_t> sample, int64_t positions, int64_t rows,
                                double row_work, int64_t shares) {
  const double of_each =
      sample.empty() ? 0.0 : static_cast<double>(positions) / static_cast<double>(sample.size());
  std::erase_if(sample, [&](int64_t row) { return row < 0 || row >= rows; });
  std::sort(sample.begin(), sample.end());
  if (sample.empty()) row_work = 1.0;
  // Of the rows before `row`.
  const auto work_before = [&](int64_t row) {
    const auto looked_up = std::lower_bound(sample.begin(), sample.end(), row) - sample.begin();
    return static_cast<double>(looked_up) * of_each + static_cast<double>(row) * row_work;
  };
  const double all = work_before(rows);
  std::vector<int64_t> begin(static_cast<size_t>(shares + 1), rows);
  begin[0] = 0;
  for (int64_t share = 1; share < shares; ++share) {
    const double wanted = all * static_cast<double>(share) / static_cast<double>(shares);
    int64_t low = begin[static_cast<size_t>(share - 1)], high = rows;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (work_before(middle) < wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    begin[static_cast<size_t>(share)] = low;
  }
  return begin;
}

}  // namespace longclock
