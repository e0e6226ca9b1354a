// SPDX-License-Identifier: Apache-2.0
#include "longclock/pack_signs/pack_signs.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

TEST(PackSigns, AgreesWithTheDefinition) {
  for_each_level([] {
    std::mt19937 random(3);
    const float special[] = {0.0f, -0.0f, std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::infinity()};
    for (int64_t columns : {1, 7, 16, 63, 64, 65, 100, 200}) {
      const int64_t rows = 5, words = sign_words(columns);
      std::vector<float> x(static_cast<size_t>(rows * columns));
      for (float& value : x) {
        value = random() % 8 == 0 ? special[random() % 4] : static_cast<float>(random() % 3) - 1;
      }
      std::vector<uint64_t> out(static_cast<size_t>(rows * words), ~uint64_t{0});
      const PackSignsParams p{DType::kFloat32, x.data(), rows, columns, out.data()};
      pack_signs_cpu(p, 0, 2);
      pack_signs_cpu(p, 2, rows);
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t bit = 0; bit < 64 * words; ++bit) {
          const bool expected = bit < columns && x[row * columns + bit] > 0;
          ASSERT_EQ(out[row * words + bit / 64] >> (bit % 64) & 1, expected)
              << columns << " " << bit;
        }
      }
    }
  });
}

}  // namespace
}  // namespace longclock
