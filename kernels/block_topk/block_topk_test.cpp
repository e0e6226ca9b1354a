// SPDX-License-Identifier: Apache-2.0
#include "longclock/block_topk/block_topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

std::vector<int64_t> expected_order(const std::vector<float>& row) {
  std::vector<int64_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    if (std::isnan(row[b])) return false;
    return std::isnan(row[a]) || row[a] > row[b];
  });
  return order;
}

void compare(const std::vector<float>& row, int64_t k, int64_t parts) {
  const int64_t n = static_cast<int64_t>(row.size());
  std::vector<TopKEntry> entries(static_cast<size_t>(parts * k));
  std::vector<float> scores(static_cast<size_t>(k));
  std::vector<int64_t> indices(static_cast<size_t>(k));
  BlockTopKParams p{};
  p.dtype = DType::kFloat32;
  p.scores = row.data();
  p.rows = 1;
  p.columns = p.row_stride = n;
  p.k = k;
  p.parts = parts;
  p.entries = entries.data();
  p.top_scores = scores.data();
  p.indices = indices.data();
  block_topk_cpu(p, 0, parts);
  if (parts > 1) block_topk_merge_cpu(p, 0, 1);
  const auto order = expected_order(row);
  for (int64_t i = 0; i < k; ++i) {
    if (i >= n) {
      ASSERT_EQ(indices[i], -1);
      ASSERT_EQ(scores[i], -INFINITY);
      continue;
    }
    ASSERT_EQ(indices[i], order[i]) << "place " << i << " of " << k << ", " << n << " scores";
    ASSERT_TRUE(scores[i] == row[order[i]] || std::isnan(row[order[i]]));
  }
}

TEST(BlockTopK, AgreesWithAStableSort) {
  for_each_level([] {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (int64_t n : {1, 15, 255, 256, 257, 5000, 40000}) {
      const size_t size = static_cast<size_t>(n);
      std::vector<std::vector<float>> rows(8, std::vector<float>(size));
      for (size_t i = 0; i < size; ++i) {
        rows[0][i] = normal(random);
        rows[1][i] = 0.0f;
        rows[2][i] = static_cast<float>(i);
        rows[3][i] = -static_cast<float>(i);
        rows[4][i] = static_cast<float>(random() % 3) - 1.0f;
        rows[5][i] = i % 7 == 0 ? NAN : normal(random);
        rows[6][i] = i % 5 == 0 ? -INFINITY : i % 11 == 0 ? INFINITY : -0.0f;
        rows[7][i] = -INFINITY;
      }
      // What a row is sampled at, and nothing else, is high: the sampled threshold lets too few
      // pass.
      for (size_t i = 0; i < size; i += std::max<size_t>(1, size / 512)) rows[3][i] += 1e6f;
      for (size_t row = 0; row < rows.size(); ++row) {
        SCOPED_TRACE("pattern " + std::to_string(row));
        for (int64_t k : {1, 7, 100, 1000, 2048}) {
          for (int64_t parts : {1, 3}) compare(rows[row], k, parts);
        }
      }
    }
  });
}

TEST(Selection, EntriesOrderAsScoresThenIndices) {
  const float scores[] = {-INFINITY, -1e30f, -1.0f, -1e-40f, 0.0f, 1e-40f, 1.0f, INFINITY, NAN};
  for (size_t i = 0; i + 1 < std::size(scores); ++i) {
    EXPECT_LT(topk_entry(scores[i], 0), topk_entry(scores[i + 1], 2147483646));
    EXPECT_GT(topk_entry(scores[i], 5), topk_entry(scores[i], 6));
    EXPECT_EQ(entry_score(topk_entry(scores[i], 5)), scores[i]);
    EXPECT_EQ(entry_index(topk_entry(scores[i], 2147483646)), 2147483646);
  }
  EXPECT_EQ(topk_entry(-0.0f, 3), topk_entry(0.0f, 3));
  EXPECT_EQ(topk_entry(-NAN, 3), topk_entry(NAN, 3));
  EXPECT_NE(topk_entry(-INFINITY, 2147483646), 0u);
}

}  // namespace
}  // namespace longclock
