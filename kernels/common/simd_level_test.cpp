// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/simd_level.h"

#include <gtest/gtest.h>

namespace longclock {
namespace {

TEST(SimdLevel, NamesParseBack) {
  for (SimdLevel level : {SimdLevel::kScalar, SimdLevel::kAvx2, SimdLevel::kAvx512}) {
    SimdLevel parsed = SimdLevel::kScalar;
    ASSERT_TRUE(parse_simd_level(name(level), &parsed));
    EXPECT_EQ(parsed, level);
  }
  SimdLevel parsed = SimdLevel::kAvx2;
  EXPECT_FALSE(parse_simd_level("avx", &parsed));
  EXPECT_EQ(parsed, SimdLevel::kAvx2);
}

TEST(SimdLevel, SetsWhatTheMachineHasAndNothingElse) {
  for (SimdLevel level : {SimdLevel::kScalar, SimdLevel::kAvx2, SimdLevel::kAvx512}) {
    const SimdLevel before = simd_level();
    EXPECT_EQ(set_simd_level(level), level <= max_simd_level());
    EXPECT_EQ(simd_level(), level <= max_simd_level() ? level : before);
  }
  set_simd_level(max_simd_level());
}

}  // namespace
}  // namespace longclock
