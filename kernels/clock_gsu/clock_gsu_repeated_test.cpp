// SPDX-License-Identifier: Apache-2.0
// Rows that repeat are multiplied once: the same bits as when each behaviour has a row of its own.
#include <gtest/gtest.h>

#include "longclock/clock_gsu/clock_gsu_found_test.h"
#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

TEST(RepeatedSearch, HasTheBitsOfRowsThatDoNotRepeat) {
  constexpr int64_t kLength = 3000, kDim = 21;
  for_each_level([] {
    for (int64_t rows : {1, 7, 500, 1499, 1500, 2900}) {  // from half the length on, not looked for
      SearchFixture dense(2, 37, kLength, kDim);
      std::mt19937 random(5);
      std::normal_distribution<float> normal;
      std::vector<float> table(static_cast<size_t>(rows * kDim));
      for (float& x : table) x = normal(random);
      for (float& x : dense.queries) x *= 0.37f;
      std::vector<int64_t> ids(2 * kLength);
      for (size_t i = 0; i < ids.size(); ++i) {
        ids[i] = static_cast<int64_t>(i < static_cast<size_t>(rows) ? i : random() % rows);
        std::copy_n(table.begin() + ids[i] * kDim, kDim, dense.keys.begin() + i * kDim);
      }
      for (size_t i = 0; i < ids.size(); i += 3) {  // what is not valid has no row to look at
        dense.mask[i] = 0;
        ids[i] = -1;
      }
      dense.behaviours.mask = dense.mask.data();
      SearchFixture repeated = dense;
      repeated.behaviours.keys = table.data();
      repeated.behaviours.ids = {ids.data(), true};
      repeated.behaviours.mask = dense.mask.data();
      for (int64_t k : {1, 100, 700, 2048}) {
        EXPECT_EQ(search(repeated, k, 37, 1), search(dense, k, 37, 1)) << rows << " rows, k " << k;
        EXPECT_EQ(search(repeated, k, 20, 3), search(dense, k, 37, 1)) << rows << " rows, k " << k;
      }
    }
  });
}

}  // namespace
}  // namespace longclock
