// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/range.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

constexpr int64_t kMin = std::numeric_limits<int64_t>::min(),
                  kMax = std::numeric_limits<int64_t>::max();

template <class Int>
void expect_found(Int outside, int64_t low, int64_t high) {
  for (int64_t n : {0, 1, 7, 8, 31, 32, 33, 100}) {
    std::vector<Int> values(static_cast<size_t>(n) + 2, outside);
    for (int64_t i = 0; i < n; ++i) values[i + 1] = static_cast<Int>(i % 2 == 0 ? low : high);
    const IntArray array{values.data(), sizeof(Int) == 8};
    EXPECT_TRUE(all_between_cpu({array, low, high}, 1, n + 1)) << n;
    for (int64_t i = 0; i < n; ++i) {
      const Int kept = values[i + 1];
      values[i + 1] = outside;
      EXPECT_FALSE(all_between_cpu({array, low, high}, 1, n + 1)) << i << " of " << n;
      values[i + 1] = kept;
    }
  }
}

TEST(Range, OneValueOutsideIsFoundWhereverItIs) {
  for_each_level([] {
    for (const int64_t outside : {kMin, int64_t{-101}, int64_t{101}, kMax}) {
      expect_found<int64_t>(outside, -100, 100);
    }
    for (const int64_t outside : {kMin, int64_t{-1}, int64_t{1}, kMax}) {
      expect_found<int64_t>(outside, 0, 0);
    }
    expect_found<int64_t>(-1, 0, kMax);
    for (const int32_t outside : {std::numeric_limits<int32_t>::min(), -1, 9}) {
      expect_found<int32_t>(outside, 0, 8);
    }
  });
}

TEST(Range, NothingIsInAnEmptyRange) {
  const std::vector<int64_t> values(5);
  EXPECT_FALSE(all_between_cpu({{values.data(), true}, 0, -1}, 0, 5));
  EXPECT_TRUE(all_between_cpu({{values.data(), true}, 0, -1}, 3, 3));
}

}  // namespace
}  // namespace longclock
