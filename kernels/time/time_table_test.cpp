// SPDX-License-Identifier: Apache-2.0
#include "longclock/time/time_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace longclock {
namespace {

TEST(TimeTable, NoSIsAboveTheLimitOfItsBucket) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (size_t size : {1, 2, 31, 32, 33, 100, 43201, 1 << 20}) {
    std::vector<float> s(size);
    for (float& x : s) x = normal(random) - 5.0f;
    const TimeTable table(s);
    std::vector<bool> reached(kTimeBuckets);
    for (size_t delta = 0; delta < size; ++delta) {
      const size_t bucket = delta >> table.bucket_shift;
      ASSERT_LT(bucket, size_t{kTimeBuckets});
      ASSERT_LE(s[delta], table.limits[bucket]);
      reached[bucket] = reached[bucket] || s[delta] == table.limits[bucket];
    }
    for (size_t bucket = 0; bucket <= (size - 1) >> table.bucket_shift; ++bucket) {
      EXPECT_TRUE(reached[bucket]) << size << " " << bucket;
    }
  }
}

TEST(TimeTable, ABucketWithANumberThatIsNotFiniteHasNoLimit) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (float x : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> s(43201, 1.0f);
    s[5000] = x;
    const TimeTable table(s);
    for (int bucket = 0; bucket < kTimeBuckets; ++bucket) {
      EXPECT_EQ(std::isnan(table.limits[bucket]), bucket == 5000 >> table.bucket_shift);
    }
  }
}

}  // namespace
}  // namespace longclock
