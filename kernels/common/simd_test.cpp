// SPDX-License-Identifier: Apache-2.0
// The vectors and functions that kernels are made of, at the level this file is compiled for.
#define LONGCLOCK_SIMD_NAMESPACE scalar
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "longclock/common/math-inl.h"
#include "longclock/common/rows-inl.h"

namespace longclock::scalar {
namespace {

double half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa != 0 ? std::nan("") : sign * INFINITY;
  return sign *
         (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

TEST(Simd, EveryHalfConvertsExactlyAndBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    const double expected = half_value(half.bits);
    const float value = to_float(half);
    Float16 back;
    from_float(value, &back);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value) && std::isnan(to_float(back))) << bits;
    } else {
      EXPECT_EQ(value, expected) << bits;
      EXPECT_EQ(std::signbit(value), std::signbit(expected)) << bits;
      EXPECT_EQ(back.bits, half.bits);
    }
  }
}

TEST(Simd, HalvesRoundToNearestEven) {
  // Between neighbours h and h + 1: the middle goes to the even one, a hair beside it to its side.
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const double low = half_value(bits), high = half_value(static_cast<uint16_t>(bits + 1));
    const float middle = static_cast<float>((low + high) / 2);
    Float16 out;
    from_float(middle, &out);
    EXPECT_EQ(out.bits, bits + (bits & 1)) << bits;
    from_float(std::nextafterf(middle, 0.0f), &out);
    EXPECT_EQ(out.bits, bits);
    from_float(std::nextafterf(middle, INFINITY), &out);
    EXPECT_EQ(out.bits, bits + 1);
  }
  Float16 out;
  from_float(65519.99f, &out);
  EXPECT_EQ(out.bits, 0x7bff);
  from_float(65520.0f, &out);
  EXPECT_EQ(out.bits, 0x7c00);
}

TEST(Simd, BFloat16RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7f7f; ++bits) {
    const float low = bits_to_float(bits << 16), middle = bits_to_float(bits << 16 | 0x8000);
    BFloat16 out;
    from_float(low, &out);
    EXPECT_EQ(out.bits, bits);
    from_float(middle, &out);
    EXPECT_EQ(out.bits, bits + (bits & 1));
    from_float(bits_to_float(bits << 16 | 0x8001), &out);
    EXPECT_EQ(out.bits, bits + 1);
  }
  BFloat16 out;
  from_float(bits_to_float(0x7f800001), &out);
  EXPECT_TRUE(std::isnan(to_float(out)));
}

TEST(Simd, LogIsWithinTwoUlp) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> exponent(-24.0f, 60.0f);
  for (int i = 0; i < 200000; ++i) {
    const float x = std::exp2(exponent(random));
    const double expected = std::log1p(double{x});
    EXPECT_NEAR(log1p(x), expected, 2 * 1.2e-7 * expected) << x;
  }
  EXPECT_EQ(log1p(0.0f), 0.0f);
  EXPECT_EQ(log1p(INFINITY), INFINITY);
  EXPECT_EQ(log1p(-1.0f), -INFINITY);
  EXPECT_TRUE(std::isnan(log1p(-2.0f)));
  EXPECT_TRUE(std::isnan(log1p(NAN)));
}

TEST(Simd, ExpIsWithinTwoUlp) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> argument(-87.0f, 0.0f);
  for (int i = 0; i < 200000; ++i) {
    const float x = argument(random);
    const double expected = std::exp(double{x});
    EXPECT_NEAR(exp_negative(x), expected, 2 * 1.2e-7 * expected) << x;
  }
  EXPECT_EQ(exp_negative(0.0f), 1.0f);
  EXPECT_EQ(exp_negative(-88.0f), 0.0f);
  EXPECT_EQ(exp_negative(-INFINITY), 0.0f);
  EXPECT_TRUE(std::isnan(exp_negative(NAN)));
}

TEST(Simd, ReduceRowsSumsEachRow) {
  Vf rows[kLanes];
  for (int r = 0; r < kLanes; ++r) {
    for (int lane = 0; lane < kLanes; ++lane) rows[r][lane] = static_cast<float>(100 * r + lane);
  }
  const Vf sums = reduce_rows(rows);
  for (int r = 0; r < kLanes; ++r) {
    EXPECT_EQ(sums[r], 100 * r * kLanes + kLanes * (kLanes - 1) / 2);
  }
}

TEST(Simd, TilesOfDotProductsHaveTheBitsOfSingleOnes) {
  constexpr int64_t kDim = 3 * kLanes, kRows = 13, kQueries = 7;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> keys(kRows * kDim), queries(kQueries * kDim);
  for (float& x : keys) x = normal(random);
  for (float& x : queries) x = normal(random);
  const float *key_rows[kRows], *query_rows[kQueries];
  for (int64_t r = 0; r < kRows; ++r) key_rows[r] = keys.data() + r * kDim;
  for (int64_t q = 0; q < kQueries; ++q) query_rows[q] = queries.data() + q * kDim;
  std::vector<float> tiled(kQueries * kRows);
  dot_tiles(query_rows, kQueries, key_rows, kRows, kDim, 0, tiled.data(), kRows);
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int64_t r = 0; r < kRows; ++r) {
      EXPECT_EQ(tiled[q * kRows + r], dot(query_rows[q], key_rows[r], kDim));
    }
  }
}

}  // namespace
}  // namespace longclock::scalar
