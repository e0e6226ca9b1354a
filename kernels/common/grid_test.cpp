// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/grid.h"

#include <gtest/gtest.h>

#include <vector>

namespace longclock {
namespace {

constexpr int64_t kTwoTo31 = int64_t{1} << 31, kTwoTo32 = int64_t{1} << 32;

TEST(Grid, WhatDoesNotFitIsRefusedAndNeverCut) {
  EXPECT_EQ(grid_of(1, kMaxBlocks), 1u);
  EXPECT_EQ(grid_of(kMaxBlocks, kMaxBlocks), 2147483647u);
  for (const int64_t blocks :
       {kTwoTo31, kTwoTo31 + 7, kTwoTo32 - 1, kTwoTo32, kTwoTo32 + 7, int64_t{1} << 62}) {
    EXPECT_EQ(grid_of(blocks, kMaxBlocks), 0u) << blocks;
  }
  EXPECT_EQ(grid_of(-1, kMaxBlocks), 0u);  // of a product that overflowed
}

struct Part {
  int64_t first, count;
};

std::vector<Part> parts(int64_t items, int64_t part, int64_t item_blocks,
                        int64_t most = kMaxBlocks) {
  std::vector<Part> out;
  EXPECT_EQ(for_each_part(items, part, item_blocks, most,
                          [&](int64_t first, int64_t count) {
                            out.push_back({first, count});
                            return 0;
                          }),
            0);
  return out;
}

TEST(Grid, PortionsCoverEveryItemOnceAndFit) {
  for (const int64_t items :
       {int64_t{1}, kMaxBlocks, kTwoTo31, kTwoTo31 + 5, kTwoTo32, kTwoTo32 + 5, 3 * kTwoTo32 + 1}) {
    for (const int64_t item_blocks : {1, 2, 3, 1000, 2147483647}) {
      if (items / (kMaxBlocks / item_blocks) > 10'000) continue;
      int64_t next = 0;
      for (const Part& each : parts(items, items, item_blocks)) {
        EXPECT_EQ(each.first, next);
        EXPECT_GE(each.count, 1);
        EXPECT_NE(grid_of(each.count * item_blocks, kMaxBlocks), 0u) << items << " " << item_blocks;
        next += each.count;
      }
      EXPECT_EQ(next, items);
    }
  }
}

TEST(Grid, PortionsAreOneWhereAllFits) {
  EXPECT_EQ(parts(kMaxBlocks, kMaxBlocks, 1).size(), 1u);
  EXPECT_EQ(parts(kTwoTo31, kTwoTo31, 1).size(), 2u);
  EXPECT_EQ(parts(10, 10, 1).size(), 1u);
  EXPECT_EQ(parts(10, 4, 1).size(), 3u);      // a workspace has room for four
  EXPECT_EQ(parts(10, 10, 3, 7).size(), 5u);  // two of three blocks fit seven
  EXPECT_EQ(parts(10, 10, 0).size(), 1u);
  EXPECT_TRUE(parts(0, 0, 1).empty());
}

TEST(Grid, AnItemThatFitsNoLaunchIsRefused) {
  for (const Part& each : parts(3, 3, kTwoTo32)) {
    EXPECT_EQ(each.count, 1);
    EXPECT_EQ(grid_of(each.count * kTwoTo32, kMaxBlocks), 0u);
  }
}

TEST(Grid, TheFirstErrorEndsIt) {
  int calls = 0;
  EXPECT_EQ(for_each_part(10, 2, 1, kMaxBlocks,
                          [&](int64_t first, int64_t) {
                            ++calls;
                            return first == 4 ? 9 : 0;
                          }),
            9);
  EXPECT_EQ(calls, 3);
}

}  // namespace
}  // namespace longclock
