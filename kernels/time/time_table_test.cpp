// SPDX-License-Identifier: Apache-2.0
#include "longclock/time/time_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace longclock {
namespace {

// Every second that is told apart, and its neighbours.
TEST(Elapsed, KeepsSevenBitsAndFindsTheirPlace) {
  int32_t place = -1;
  for (int bits = 0; bits <= 24; ++bits) {
    for (int64_t kept = bits == 0 ? 0 : 64; kept < 128; ++kept) {
      const auto seconds = static_cast<int32_t>(kept << bits);
      const int64_t last = std::min(((kept + 1) << bits) - 1, kLongestElapsed);
      for (int64_t x : {int64_t{seconds}, seconds + (last - seconds) / 2, last}) {
        ASSERT_EQ(elapsed_delta(x, 0), seconds);
        ASSERT_EQ(elapsed_delta(-5000000000, -5000000000 + x), seconds);
      }
      ASSERT_GT(elapsed_place(seconds), place);
      place = elapsed_place(seconds);
      ASSERT_EQ(elapsed_seconds(place), seconds);
    }
  }
  EXPECT_EQ(elapsed_place(0), 0);
  EXPECT_EQ(place, kElapsedPlaces - 1);
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(elapsed_delta(kLeast, std::numeric_limits<int64_t>::max()), 127 << 24);
  EXPECT_EQ(elapsed_delta(kLongestElapsed + 1, 0), 127 << 24);
}

TEST(TimeTable, NoSIsAboveTheLimitOfItsBucket) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (size_t size : {1, 2, 31, 32, 33, 100, 43201, 1 << 20}) {
    std::vector<float> s(size);
    for (float& x : s) x = normal(random) - 5.0f;
    for (const bool many : {false, true}) {
      const TimeTable table(s, false, many);
      const size_t buckets = many ? kManyTimeBuckets : kTimeBuckets;
      std::vector<bool> reached(buckets);
      for (size_t delta = 0; delta < size; ++delta) {
        const size_t bucket = delta >> table.bucket_shift;
        ASSERT_LT(bucket, buckets);
        ASSERT_LE(s[delta], table.limits[bucket]);
        reached[bucket] = reached[bucket] || s[delta] == table.limits[bucket];
      }
      for (size_t bucket = 0; bucket <= (size - 1) >> table.bucket_shift; ++bucket) {
        EXPECT_TRUE(reached[bucket]) << size << " " << bucket;
      }
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
