// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/query_rows.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

// To so many bits of fraction and no smaller exponent, ties to even; by integers of double.
float nearest(float x, int fraction_bits, int least_exponent, double largest) {
  if (std::isnan(x) || std::isinf(x) || x == 0) return x;
  const int exponent = std::max(std::ilogb(x), least_exponent);
  const double step = std::ldexp(1.0, exponent - fraction_bits);
  const double rounded = std::nearbyint(double{x} / step) * step;
  if (std::fabs(rounded) <= largest) return static_cast<float>(rounded);
  return std::copysign(std::numeric_limits<float>::infinity(), x);
}
float nearest_to(DType dtype, float x) {
  if (dtype == DType::kFloat16) return nearest(x, 10, -14, 65504.0);
  if (dtype == DType::kBFloat16) return nearest(x, 7, -126, 3.3895313892515355e38);
  return x;
}

// Numbers of every size, of any bits, on the edges of ranges, and between two that are exact.
std::vector<float> values(size_t count) {
  std::mt19937 random(3);
  std::vector<float> out{0.0f,     -0.0f,      1.0f + 0x1p-8f,  1.0f + 0x3p-8f, 65519.0f, 65520.0f,
                         0x1p-25f, 0x1.8p-24f, 0x1.0001p-25f,   -6.1e-5f,       3.4e38f,  1e-45f,
                         2049.0f,  2051.0f,    1.0f + 0x1p-11f, INFINITY,       -INFINITY};
  while (out.size() < count) out.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  return out;
}

TEST(QueryRows, AreRoundedAndPadded) {
  constexpr int64_t kRows = 40, kWidths[] = {5, 16, 0, 35}, kWidth = 56, kStride = 60, kTo = 80;
  const std::vector<float> from = values(kRows * kStride);
  for (const DType rounded_to : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for_each_level([&] {
      std::vector<float> to(kRows * kTo, 7.0f);
      const QueryRowsParams params{DType::kFloat32, from.data(), kStride,   rounded_to,
                                   kWidths,         4,           to.data(), kTo};
      query_rows_cpu(params, 0, 25);
      query_rows_cpu(params, 25, kRows);
      for (int64_t row = 0; row < kRows; ++row) {
        int64_t read = 0, written = 0;
        for (const int64_t width : kWidths) {
          for (int64_t i = 0; i < padded_dim(width); ++i, ++written) {
            const float x = i < width ? from[row * kStride + read++] : 0.0f;
            const float got = to[row * kTo + written], expected = nearest_to(rounded_to, x);
            if (std::isnan(expected)) {
              ASSERT_TRUE(std::isnan(got));
            } else {
              ASSERT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(expected)) << x;
            }
          }
        }
        ASSERT_EQ(read, kWidth);
        ASSERT_EQ(written, kTo);
      }
    });
  }
}

TEST(QueryRows, Of16BitsAreWidened) {
  constexpr int64_t kWidth = 0x7c00;  // all numbers from 0 on
  std::vector<Float16> halves;
  std::vector<BFloat16> brains;
  for (int64_t i = 0; i < kWidth; ++i) {
    halves.push_back({static_cast<uint16_t>(i)});
    brains.push_back({static_cast<uint16_t>(i)});
  }
  for_each_level([&] {
    std::vector<float> to(kWidth);
    query_rows_cpu(
        {DType::kFloat16, halves.data(), kWidth, DType::kFloat16, &kWidth, 1, to.data(), kWidth}, 0,
        1);
    for (int64_t i = 0; i < kWidth; ++i) {
      const auto exponent = static_cast<int>(i >> 10);
      const double fraction = static_cast<double>((i & 0x3ff) + (exponent > 0 ? 0x400 : 0));
      ASSERT_EQ(to[i], std::ldexp(fraction, std::max(exponent, 1) - 25)) << i;
    }
    query_rows_cpu(
        {DType::kBFloat16, brains.data(), kWidth, DType::kBFloat16, &kWidth, 1, to.data(), kWidth},
        0, 1);
    for (int64_t i = 0; i < kWidth; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(to[i]), static_cast<uint32_t>(i) << 16);
    }
  });
}

}  // namespace
}  // namespace longclock
