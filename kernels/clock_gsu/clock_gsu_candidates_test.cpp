// SPDX-License-Identifier: Apache-2.0
// Many candidates: data that is hard on sampled thresholds, and bits that must not depend on
// company.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <functional>

#include "longclock/clock_gsu/clock_gsu_found_test.h"
#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

// One dimension and no time term: candidate c scores behaviour m as (c % 3 + 1) * value(m).
struct OneDimension : SearchFixture {
  OneDimension(int64_t candidates, int64_t m, const std::function<float(int64_t)>& value)
      : SearchFixture(1, candidates, m, 1) {
    scale = 1;
    mlp[5] = mlp[6] = 0;
    for (int64_t i = 0; i < m; ++i) keys[i] = value(i);
    for (int64_t c = 0; c < candidates; ++c) queries[c * stride] = static_cast<float>(c % 3 + 1);
  }

  void expect_exact(int64_t k, int64_t task_queries, int64_t parts) const {
    const Found found = search(*this, k, task_queries, parts);
    for (int64_t c = 0; c < candidates; ++c) {
      std::vector<TopKEntry> expected;
      for (int64_t m = 0; m < length; ++m) {
        if (valid(0, m)) expected.push_back(topk_entry(queries[c * stride] * keys[m], m));
      }
      std::sort(expected.begin(), expected.end(), std::greater<>());
      for (int64_t i = 0; i < k; ++i) {
        const bool some = i < static_cast<int64_t>(expected.size());
        ASSERT_EQ(found.indices[c * k + i], some ? entry_index(expected[i]) : -1)
            << "candidate " << c << ", place " << i << ", k " << k << ", length " << length;
        ASSERT_EQ(std::bit_cast<uint32_t>(found.scores[c * k + i]),
                  std::bit_cast<uint32_t>(some ? entry_score(expected[i]) : -INFINITY));
      }
    }
  }
};

constexpr int64_t kMany = 3000;  // sampled: every fifth

struct Pattern {
  const char* name;
  std::function<float(int64_t)> value;
};

std::vector<Pattern> patterns() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto noise = [](int64_t m) { return static_cast<float>(m * 7919 % 2003); };
  return {
      {"all equal", [](int64_t) { return 5.0f; }},
      {"ascending", [](int64_t m) { return static_cast<float>(m); }},
      {"descending", [](int64_t m) { return static_cast<float>(-m); }},
      {"noise", noise},
      {"one hot block", [=](int64_t m) { return m / 256 == 5 ? noise(m) + 5000 : noise(m); }},
      {"a hot block of equals", [](int64_t m) { return m / 256 == 5 ? 2.0f : 1.0f; }},
      {"ties across the edges of blocks",
       [](int64_t m) { return m % 144 < 3 || m % 256 > 252 ? 9.0f : static_cast<float>(m % 8); }},
      {"the last bit", [](int64_t m) { return 1.0f + 0x1p-23f * static_cast<float>(m * 31 % 5); }},
      {"zeros of both signs", [](int64_t m) { return m % 2 == 0 ? 0.0f : -0.0f; }},
      {"NaN here and there", [=](int64_t m) { return m % 97 == 3 ? nan : noise(m); }},
      {"NaN nearly everywhere", [=](int64_t m) { return m % 97 == 3 ? noise(m) : nan; }},
      {"infinities",
       [=](int64_t m) { return m % 9 == 0   ? INFINITY
                               : m % 5 == 0 ? -INFINITY
                                            : noise(m); }},
      {"minus infinity alone", [](int64_t) { return -INFINITY; }},
      {"many powers of two",
       [](int64_t m) { return std::ldexp(1.0f, static_cast<int>(m * 7919 % 241) - 120); }},
      // Every fifth is sampled: thresholds far too high, and far too low.
      {"the sampled are the best", [=](int64_t m) { return noise(m) + (m % 5 == 0 ? 5000 : 0); }},
      {"the sampled are the worst", [=](int64_t m) { return noise(m) - (m % 5 == 0 ? 5000 : 0); }},
  };
}

TEST(CandidateSearch, IsExactWhateverTheData) {
  for_each_level([] {
    for (const Pattern& pattern : patterns()) {
      SCOPED_TRACE(pattern.name);
      const OneDimension f(37, kMany, pattern.value);
      for (int64_t k : {1, 100, 700}) {
        f.expect_exact(k, 37, 1);
        f.expect_exact(k, 32, 3);
      }
    }
  });
}

TEST(CandidateSearch, IsExactWhateverTheSizes) {
  for_each_level([] {
    for (int64_t m : {0, 1, 2, 11, 12, 13, 143, 144, 145, 255, 256, 257, 511, 1300}) {
      for (int64_t candidates : {2, 3, 13, 16, 17, 33, 64, 65}) {
        const OneDimension f(candidates, m,
                             [](int64_t i) { return static_cast<float>(i * 7919 % 101); });
        for (int64_t k : {1, 50, 2048}) f.expect_exact(k, 256, 1);
      }
    }
  });
}

TEST(CandidateSearch, PassesOverWhatIsNotThere) {
  for_each_level([] {
    for (int64_t every : {2, 5, 7, 100, 5000}) {
      for (bool rest : {false, true}) {
        OneDimension f(35, kMany, [](int64_t m) { return static_cast<float>(m * 7919 % 2003); });
        f.behaviours.mask = f.mask.data();
        for (int64_t m = 0; m < kMany; ++m) {
          f.mask[m] = (m % every == 0) != rest;
          if (f.mask[m] == 0) f.keys[m] = std::numeric_limits<float>::quiet_NaN();
        }
        for (int64_t k : {1, 100}) f.expect_exact(k, 35, 2);
        f.behaviours.exclude_future = true;
        f.expect_exact(100, 35, 1);
      }
    }
  });
}

// Real numbers, rounded to what the keys' dtype holds.
struct RealFixture : SearchFixture {
  std::vector<uint16_t> narrow;

  RealFixture(int64_t c, int64_t m, int64_t d, DType dtype) : SearchFixture(1, c, m, d) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    const bool wide = dtype == DType::kFloat32;
    const auto draw = [&] {
      const float x = normal(random);
      return wide ? x : std::round(x * 16) / 16;
    };
    for (float& x : keys) x = draw();
    for (int64_t i = 0; i < c; ++i) {
      for (int64_t j = 0; j < d; ++j) queries[i * stride + j] = draw();
    }
    if (dtype == DType::kBFloat16) {
      for (float x : keys) {
        narrow.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16));
      }
      behaviours.keys = narrow.data();
    }
    behaviours.dtype = dtype;
  }
};

// Of all behaviours, in their order.
std::vector<float> all_scores(const SearchFixture& f, int64_t task_queries, int64_t parts) {
  const Found found = search(f, f.length, task_queries, parts);
  std::vector<float> scores(found.scores.size());
  for (int64_t i = 0; i < static_cast<int64_t>(scores.size()); ++i) {
    scores[i / f.length * f.length + found.indices[i]] = found.scores[i];
  }
  return scores;
}

TEST(CandidateSearch, AScoreHasTheSameBitsInAnyCompany) {
  for_each_level([] {
    for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (int64_t dim : {1, 7, 37, 64}) {
        RealFixture f(70, 600, dim, dtype);
        const std::vector<float> scores = all_scores(f, 70, 1);
        for (int64_t i = 0; i < f.candidates * f.length; ++i) {
          const double exact = f.score(i / f.length, i % f.length);
          ASSERT_NEAR(scores[i], exact, 2e-5 * (1 + std::abs(exact)));
        }
        EXPECT_EQ(scores, all_scores(f, 13, 1));
        EXPECT_EQ(scores, all_scores(f, 32, 7));
        // A third of the candidates without the others, the last one first.
        constexpr int64_t kSome = 23;
        static_assert(kSome > kFewQueries);
        RealFixture some(70, 600, dim, dtype);
        some.candidates = some.groups[0].query_end = kSome;
        for (int64_t i = 0; i < kSome; ++i) {
          std::copy_n(f.queries.begin() + (69 - 3 * i) * f.stride, f.stride,
                      some.queries.begin() + i * f.stride);
        }
        const std::vector<float> fewer = all_scores(some, kSome, 1);
        for (int64_t i = 0; i < kSome; ++i) {
          EXPECT_TRUE(std::equal(fewer.begin() + i * f.length, fewer.begin() + (i + 1) * f.length,
                                 scores.begin() + (69 - 3 * i) * f.length));
        }
      }
    }
  });
}

}  // namespace
}  // namespace longclock
