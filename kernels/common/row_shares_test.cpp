// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/row_shares.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace longclock {
namespace {

// Every row is in one range, whatever the sample.
void expect_cut(const std::vector<int64_t>& begin, int64_t rows, int64_t shares) {
  ASSERT_EQ(begin.size(), static_cast<size_t>(shares + 1));
  EXPECT_EQ(begin.front(), 0);
  EXPECT_EQ(begin.back(), rows);
  EXPECT_TRUE(std::is_sorted(begin.begin(), begin.end()));
}

TEST(RowShares, EvenWhereNothingIsKnown) {
  for (const std::vector<int64_t>& sample : {std::vector<int64_t>{}, {-1, 100, 1 << 30}}) {
    const std::vector<int64_t> begin = share_rows(sample, 50, 100, 0.0, 4);
    EXPECT_EQ(begin, (std::vector<int64_t>{0, 25, 50, 75, 100}));
  }
}

TEST(RowShares, AsManyPositionsInEach) {
  // Row r is looked up by 1,000 / (r + 1) of the sample.
  std::vector<int64_t> sample;
  for (int64_t row = 0; row < 1000; ++row) sample.insert(sample.end(), 1000 / (row + 1), row);
  const int64_t shares = 4;
  const std::vector<int64_t> begin =
      share_rows(sample, 10 * static_cast<int64_t>(sample.size()), 1000, 0.0, shares);
  expect_cut(begin, 1000, shares);
  for (size_t share = 0; share < 4; ++share) {
    const auto mine = std::count_if(sample.begin(), sample.end(), [&](int64_t row) {
      return begin[share] <= row && row < begin[share + 1];
    });
    EXPECT_LE(mine, static_cast<int64_t>(sample.size()) / shares + 1000);  // and its last row
  }
  EXPECT_LT(begin[2], 50);  // even ranges would begin at 500
}

TEST(RowShares, RowsHaveWorkOfTheirOwn) {
  const std::vector<int64_t> sample(100, 0);
  const std::vector<int64_t> begin = share_rows(sample, 1000, 1000, 1.0, 2);
  EXPECT_EQ(begin, (std::vector<int64_t>{0, 1, 1000}));  // row 0 is half of all
  EXPECT_EQ(share_rows(sample, 1000, 3000, 1.0, 2)[1], 1000);
}

TEST(RowShares, OneRowThatAllLookUp) {
  const std::vector<int64_t> begin = share_rows(std::vector<int64_t>(64, 7), 640, 10, 0.0, 3);
  expect_cut(begin, 10, 3);
}

TEST(RowShares, NoRows) { expect_cut(share_rows({3, 4}, 2, 0, 1.0, 5), 0, 5); }

}  // namespace
}  // namespace longclock
