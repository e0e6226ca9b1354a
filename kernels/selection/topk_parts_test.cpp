// SPDX-License-Identifier: Apache-2.0
#include "longclock/selection/topk_parts.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace longclock {
namespace {

constexpr int64_t kLongest = 10'000, kBest = 100;
// Of a block of one candidate, and of one that begins with up to 16.
constexpr int64_t kStarts[] = {128, 512};

int64_t parts_of(int64_t rows, int64_t longest, int64_t k, int64_t start, int64_t multiprocessors) {
  return balanced_parts(rows, longest, topk_part_costs(k, start), multiprocessors);
}

// What the busiest multiprocessor reads over what each would if all had the same.
double imbalance(int64_t rows, int64_t parts, int64_t multiprocessors) {
  const int64_t blocks = (rows * parts + multiprocessors - 1) / multiprocessors;
  const int64_t part = (kLongest + parts - 1) / parts;
  return static_cast<double>(blocks * part * multiprocessors) /
         static_cast<double>(rows * kLongest);
}

// The multiprocessors of cards, and batches that are enough for all of them.
TEST(TopKParts, NoMultiprocessorReadsMuchMoreThanItsShare) {
  for (const int64_t multiprocessors : {58, 82, 108, 132, 142, 148, 188}) {
    for (int64_t rows = 3 * multiprocessors / 10; rows <= 4 * multiprocessors; ++rows) {
      for (const int64_t start : kStarts) {
        const int64_t parts = parts_of(rows, kLongest, kBest, start, multiprocessors);
        EXPECT_LE(imbalance(rows, parts, multiprocessors), start == 128 ? 1.15 : 1.25)
            << rows << " rows on " << multiprocessors << " in " << parts << ", start " << start;
      }
    }
  }
}

// 32 histories on an H100: nine parts each would give some multiprocessors three of them.
TEST(TopKParts, SuitASmallBatch) {
  for (const int64_t start : kStarts) {
    EXPECT_LE(imbalance(32, parts_of(32, kLongest, kBest, start, 132), 132), 1.05);
  }
}

TEST(TopKParts, AreLongEnoughForWhatTheyLeave) {
  for (const int64_t rows : {1, 3, 40, 1000, 1 << 20}) {
    for (const int64_t longest : {0, 1, 511, 512, 3000, 10'000, 1'000'000, 0x7fffffff}) {
      for (const int64_t k : {1, 100, 2048}) {
        const int64_t parts = parts_of(rows, longest, k, 128, 132);
        EXPECT_GE(parts, 1);
        if (parts > 1) {
          EXPECT_GE(longest / parts, std::max<int64_t>(1024, 4 * k));
        }
        EXPECT_LE(rows * parts, std::max<int64_t>(rows, 10 * 132));
      }
    }
  }
}

}  // namespace
}  // namespace longclock
