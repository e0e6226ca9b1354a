// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "../common/levels_test.h"
#include "../gsu_score/gsu_score.h"
#include "found_test.h"

namespace longclock {
namespace {

// The search must find exactly what its own scores say, sorted, ties by index.
TEST(ClockGsu, SelectsByTheScoresOfGsuScore) {
  for_each_level([] {
    for (int64_t candidates : {1, 3, 26}) {
      SearchFixture f(2, candidates, 700, 3);  // small integers: many ties
      f.behaviours.mask = f.mask.data();
      for (int64_t i = 0; i < 1400; i += 3) f.mask[i] = 0;
      const int64_t queries = 2 * candidates;
      std::vector<float> scores(queries * f.length);
      const auto tasks = f.tasks(kTaskQueries, 1);
      gsu_score_cpu({f.behaviours, f.queries.data(), f.stride, f.groups.data(), tasks.data(),
                     f.scale, scores.data(), false},
                    0, static_cast<int64_t>(tasks.size()));
      for (int64_t k : {1, 50, 600}) {
        const Found found = search(f, k, kTaskQueries, 1);
        EXPECT_EQ(found, search(f, k, 12, 1));
        EXPECT_EQ(found, search(f, k, 12, 3));
        for (int64_t q = 0; q < queries; ++q) {
          std::vector<TopKEntry> expected;
          for (int64_t m = 0; m < f.length; ++m) {
            if (f.there(q / candidates, m)) {
              expected.push_back(topk_entry(scores[q * f.length + m], m));
            }
          }
          std::sort(expected.begin(), expected.end(), std::greater<>());
          for (int64_t i = 0; i < k; ++i) {
            const bool some = i < static_cast<int64_t>(expected.size());
            ASSERT_EQ(found.indices[q * k + i], some ? entry_index(expected[i]) : -1);
            ASSERT_EQ(found.scores[q * k + i], some ? entry_score(expected[i]) : -INFINITY);
          }
        }
      }
    }
  });
}

TEST(ClockGsu, ATableOfTheTimeTermChangesNoBit) {
  for_each_level([] {
    SearchFixture f(2, 1, 700, 16);
    const Found direct = search(f, 100, 1, 1);
    std::vector<int32_t> deltas(43201);
    for (int32_t i = 0; i < 43201; ++i) deltas[i] = i;
    std::vector<float> table(deltas.size());
    time_similarity_cpu({{deltas.data(), false}, 43201, f.behaviours.mlp, table.data()}, 0, 43201);
    f.behaviours.time_table = table.data();
    EXPECT_EQ(direct, search(f, 100, 1, 1));
  });
}

}  // namespace
}  // namespace longclock
