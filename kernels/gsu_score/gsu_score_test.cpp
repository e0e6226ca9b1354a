// SPDX-License-Identifier: Apache-2.0
#include "longclock/gsu_score/gsu_score.h"

#include <gtest/gtest.h>

#include "longclock/common/levels_test.h"
#include "longclock/search/search_test.h"

namespace longclock {
namespace {

std::vector<float> scores_of(const SearchFixture& f, int64_t task_queries, int64_t parts,
                             bool stream = false) {
  std::vector<float> scores(static_cast<size_t>(f.sequences * f.candidates * f.length), NAN);
  const auto tasks = f.tasks(task_queries, parts);
  const GsuScoreParams p{f.behaviours, f.queries.data(), f.stride,      f.groups.data(),
                         tasks.data(), f.scale,          scores.data(), stream};
  gsu_score_cpu(p, 0, static_cast<int64_t>(tasks.size()));
  return scores;
}

TEST(GsuScore, AgreesWithDoublesHoweverTheWorkIsCut) {
  for_each_level([] {
    for (int64_t candidates : {1, 2, 13, 30}) {
      for (int64_t dim : {1, 7, 16, 33}) {
        SearchFixture f(2, candidates, 300, dim);
        for (int64_t i = 0; i < 600; i += 5) f.mask[i] = 0;
        f.behaviours.mask = f.mask.data();
        f.behaviours.exclude_future = true;
        const auto scores = scores_of(f, kTaskQueries, 1);
        for (int64_t q = 0; q < 2 * candidates; ++q) {
          for (int64_t m = 0; m < f.length; ++m) {
            const float score = scores[q * f.length + m];
            if (f.valid(q / candidates, m)) {
              ASSERT_NEAR(score, f.score(q, m), 1e-4) << q << " " << m;
            } else {
              ASSERT_EQ(score, -INFINITY) << q << " " << m;
            }
          }
        }
        EXPECT_EQ(scores, scores_of(f, 12, 1));
        EXPECT_EQ(scores, scores_of(f, 12, 3));
        EXPECT_EQ(scores, scores_of(f, 12, 3, /*stream=*/true));
      }
    }
  });
}

// Rows of no elements lie nowhere: their products are 0, and the score is s.
TEST(GsuScore, WithoutDimensionsTheScoreIsS) {
  for_each_level([] {
    for (int64_t candidates : {1, 2, 30}) {
      for (bool by_ids : {false, true}) {
        SearchFixture f(2, candidates, 300, 0);
        f.mask[7] = 0;
        f.behaviours.mask = f.mask.data();
        const std::vector<int32_t> ids(600);
        if (by_ids) f.behaviours.ids = {ids.data(), false};
        const auto scores = scores_of(f, kTaskQueries, 1);
        for (int64_t q = 0; q < 2 * candidates; ++q) {
          for (int64_t m = 0; m < f.length; ++m) {
            const float score = scores[q * f.length + m];
            if (f.valid(q / candidates, m)) {
              ASSERT_NEAR(score, f.score(q, m), 1e-4) << q << " " << m;
            } else {
              ASSERT_EQ(score, -INFINITY) << q << " " << m;
            }
          }
        }
      }
    }
  });
}

// The gradients by their definition: of the queries, of the keys and of s.
struct Gradients {
  std::vector<double> query, key, s;
};

Gradients gradients_of(const SearchFixture& f, const std::vector<float>& grad) {
  const int64_t queries = f.sequences * f.candidates, n = f.length, dim = f.dim;
  Gradients sums{std::vector<double>(queries * dim), std::vector<double>(f.sequences * n * dim),
                 std::vector<double>(f.sequences * n)};
  for (int64_t q = 0; q < queries; ++q) {
    for (int64_t m = 0; m < n; ++m) {
      const int64_t at = q / f.candidates * n + m;
      if (f.mask[at] == 0) continue;
      const double g = grad[q * n + m];
      sums.s[at] += g;
      for (int64_t i = 0; i < dim; ++i) {
        sums.query[q * dim + i] += f.scale * g * f.keys[at * dim + i];
        sums.key[at * dim + i] += f.scale * g * f.queries[q * f.stride + i];
      }
    }
  }
  return sums;
}

TEST(GsuScore, GradientsAreTheSumsOfTheirDefinition) {
  for_each_level([] {
    for (int64_t candidates : {1, 5}) {
      SearchFixture f(2, candidates, 300, 7);
      for (int64_t i = 0; i < 600; i += 5) f.mask[i] = 0;
      f.behaviours.mask = f.mask.data();
      const int64_t queries = 2 * candidates, n = f.length, dim = f.dim;
      std::vector<float> grad(queries * n);
      for (size_t i = 0; i < grad.size(); ++i) grad[i] = static_cast<float>(i * 31 % 7) - 3.0f;
      std::vector<float> query_grad(queries * dim), key_grad(2 * n * dim), s_grad(2 * n);
      std::vector<int32_t> s_delta(2 * n);
      const int64_t s_begin[] = {0, n};
      const auto tasks = f.tasks(kTaskQueries, 1);
      GsuScoreBackwardParams p{};
      p.behaviours = f.behaviours;
      p.queries = f.queries.data();
      p.query_stride = f.stride;
      p.groups = f.groups.data();
      p.group_count = 2;
      p.most_queries = candidates;
      const int64_t part_begin[] = {0, 2}, part_groups[] = {0, 1};
      p.part_begin = part_begin;
      p.part_groups = part_groups;
      p.positions = 2 * n;
      p.tasks = tasks.data();
      p.scale = f.scale;
      p.grad = grad.data();
      p.query_grad = query_grad.data();
      p.key_grad = key_grad.data();
      p.s_begin = s_begin;
      p.s_grad = s_grad.data();
      p.s_delta = s_delta.data();
      gsu_score_query_grad_cpu(p, 0, static_cast<int64_t>(tasks.size()));
      gsu_score_key_grad_cpu(p, 0, 1);
      gsu_score_s_grad_cpu(p, 0, 2);
      const Gradients sums = gradients_of(f, grad);
      for (size_t i = 0; i < query_grad.size(); ++i) EXPECT_EQ(query_grad[i], sums.query[i]) << i;
      for (size_t i = 0; i < key_grad.size(); ++i) EXPECT_EQ(key_grad[i], sums.key[i]) << i;
      for (size_t i = 0; i < s_grad.size(); ++i) EXPECT_EQ(s_grad[i], sums.s[i]) << i;

      // The same through a table whose row r is position 599 - r.
      std::vector<int32_t> ids(2 * n);
      std::vector<float> table(f.keys.size()), table_grad(f.keys.size());
      for (int64_t at = 0; at < 2 * n; ++at) {
        ids[at] = static_cast<int32_t>(2 * n - 1 - at);
        std::copy_n(&f.keys[at * dim], dim, &table[ids[at] * dim]);
      }
      p.behaviours.keys = table.data();
      p.behaviours.ids = {ids.data(), false};
      p.key_grad = table_grad.data();
      gsu_score_table_grad_cpu(p, 0, 250);
      gsu_score_table_grad_cpu(p, 250, 2 * n);
      for (int64_t at = 0; at < 2 * n; ++at) {
        for (int64_t i = 0; i < dim; ++i) {
          EXPECT_EQ(table_grad[ids[at] * dim + i], sums.key[at * dim + i]) << at;
        }
      }
    }
  });
}

TEST(GsuScore, ANanQueryLeavesWhatIsNotThereAlone) {
  for_each_level([] {
    SearchFixture f(1, 3, 20, 5);
    for (int64_t m : {0, 3, 4, 19}) f.mask[m] = 0;
    f.behaviours.mask = f.mask.data();
    f.queries[0] = NAN;
    const std::vector<float> grad(60, 1.0f);
    std::vector<float> key_grad(100, 7.0f);
    const int64_t part_begin[] = {0, 1}, part_groups[] = {0};
    GsuScoreBackwardParams p{};
    p.behaviours = f.behaviours;
    p.queries = f.queries.data();
    p.query_stride = f.stride;
    p.groups = f.groups.data();
    p.group_count = 1;
    p.most_queries = 3;
    p.scale = 1.0f;
    p.grad = grad.data();
    p.key_grad = key_grad.data();
    p.part_begin = part_begin;
    p.part_groups = part_groups;
    p.positions = 20;
    gsu_score_key_grad_cpu(p, 0, 1);
    for (int64_t m = 0; m < 20; ++m) {
      if (f.mask[m] == 0) {
        EXPECT_EQ(key_grad[m * 5], 0.0f) << m;
      } else {
        EXPECT_TRUE(std::isnan(key_grad[m * 5])) << m;
      }
    }
  });
}

}  // namespace
}  // namespace longclock
