// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "longclock/clock_gsu/clock_gsu_found_test.h"
#include "longclock/common/levels_test.h"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/time_similarity/time_similarity.h"

namespace longclock {
namespace {

// The k best by gsu_score's own scores, sorted, ties by index.
Found best_of_scores(const SearchFixture& f, int64_t k) {
  const int64_t queries = f.sequences * f.candidates;
  std::vector<float> scores(queries * f.length);
  const auto tasks = f.tasks(kTaskQueries, 1);
  gsu_score_cpu({f.behaviours, f.queries.data(), f.stride, f.groups.data(), tasks.data(), f.scale,
                 scores.data(), false},
                0, static_cast<int64_t>(tasks.size()));
  Found best{std::vector<float>(queries * k, -INFINITY), std::vector<int64_t>(queries * k, -1)};
  for (int64_t q = 0; q < queries; ++q) {
    std::vector<TopKEntry> entries;
    for (int64_t m = 0; m < f.length; ++m) {
      if (f.valid(q / f.candidates, m)) entries.push_back(topk_entry(scores[q * f.length + m], m));
    }
    std::sort(entries.begin(), entries.end(), std::greater<>());
    for (int64_t i = 0; i < std::min(k, static_cast<int64_t>(entries.size())); ++i) {
      best.scores[q * k + i] = entry_score(entries[i]);
      best.indices[q * k + i] = entry_index(entries[i]);
    }
  }
  return best;
}

// The search must find exactly what its own scores say.
TEST(ClockGsu, SelectsByTheScoresOfGsuScore) {
  for_each_level([] {
    for (int64_t candidates : {1, 3, 26}) {
      SearchFixture f(2, candidates, 700, 3);  // small integers: many ties
      f.behaviours.mask = f.mask.data();
      for (int64_t i = 0; i < 1400; i += 3) f.mask[i] = 0;
      for (int64_t k : {1, 50, 600}) {
        const Found found = search(f, k, kTaskQueries, 1);
        EXPECT_EQ(found, best_of_scores(f, k));
        EXPECT_EQ(found, search(f, k, 12, 1));
        EXPECT_EQ(found, search(f, k, 12, 3));
      }
    }
  });
}

// Rows of no elements, one by one and in panels, with the table that skips blocks and without.
TEST(ClockGsu, WithoutDimensionsSDecides) {
  for_each_level([] {
    std::vector<int32_t> deltas(43201);
    for (int32_t i = 0; i < 43201; ++i) deltas[i] = i;
    for (int64_t candidates : {1, 2, 40}) {
      for (bool by_ids : {false, true}) {
        SearchFixture f(2, candidates, 700, 0);
        f.mask[7] = 0;
        f.behaviours.mask = f.mask.data();
        const std::vector<int32_t> ids(1400);
        if (by_ids) f.behaviours.ids = {ids.data(), false};
        std::vector<float> s(deltas.size());
        time_similarity_cpu(
            {{deltas.data(), false}, 43201, f.behaviours.time.clock[0].mlp, s.data()}, 0, 43201);
        const TimeTable table(s);
        for (const TimeTable* kept : {static_cast<const TimeTable*>(nullptr), &table}) {
          if (kept == nullptr) {
            f.look_up({});
          } else {
            f.look_up({kept});
          }
          const Found found = search(f, 20, kTaskQueries, 1);
          EXPECT_EQ(found, search(f, 20, 12, 3));
          for (int64_t q = 0; q < 2 * candidates; ++q) {
            std::vector<double> expected;
            for (int64_t m = 0; m < f.length; ++m) {
              if (f.valid(q / candidates, m)) expected.push_back(f.score(q, m));
            }
            std::sort(expected.begin(), expected.end(), std::greater<>());
            for (int64_t i = 0; i < 20; ++i) {
              ASSERT_NEAR(found.scores[q * 20 + i], expected[i], 1e-4) << q << " " << i;
              ASSERT_NEAR(f.score(q, found.indices[q * 20 + i]), expected[i], 1e-4);
            }
          }
        }
      }
    }
  });
}

// Sums that are rounded: whole tiles of candidates and others, parts of a history and what is left.
TEST(ClockGsu, FewCandidatesFindToTheBitWhatEachDoesAlone) {
  constexpr int64_t kBest = 100;
  for_each_level([] {
    for (int64_t dim : {5, 64}) {
      for (int64_t candidates = 2; candidates <= kFewQueries; ++candidates) {
        SearchFixture f(2, candidates, 4500, dim);
        for (float& x : f.keys) x += 0.1f;
        for (float& x : f.queries) x *= 0.3f;
        const Found found = search(f, kBest, kTaskQueries, 1);
        EXPECT_EQ(found, search(f, kBest, kTaskQueries, 3));
        for (int64_t c = 0; c < candidates; ++c) {
          SearchFixture alone(2, 1, 4500, dim);
          alone.keys = f.keys;
          alone.times = f.times;
          alone.behaviours.keys = alone.keys.data();
          alone.behaviours.key_time = {alone.times.data(), true};
          for (int64_t s = 0; s < 2; ++s) {
            std::copy_n(f.queries.begin() + (s * candidates + c) * f.stride, f.stride,
                        alone.queries.begin() + s * f.stride);
          }
          const Found expected = search(alone, kBest, 1, 1);
          for (int64_t s = 0; s < 2; ++s) {
            const int64_t at = (s * candidates + c) * kBest;
            for (int64_t i = 0; i < kBest; ++i) {
              ASSERT_EQ(found.scores[at + i], expected.scores[s * kBest + i]) << candidates;
              ASSERT_EQ(found.indices[at + i], expected.indices[s * kBest + i]) << candidates;
            }
          }
        }
      }
    }
  });
}

// With few candidates, s is looked up only where its bucket's limit leaves a behaviour a chance.
TEST(ClockGsu, WhatALimitOfSRulesOutIsNotAmongTheBest) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  using Curve = float (*)(int32_t delta);
  const Curve curves[] = {
      [](int32_t) { return 0.0f; },
      [](int32_t delta) { return -static_cast<float>(delta) / 3600.0f; },
      [](int32_t delta) { return static_cast<float>(delta % 7) * 1e3f; },
      [](int32_t delta) { return delta % 1000 == 0 ? INFINITY : 0.0f; },
      [](int32_t delta) { return delta % 2 == 0 ? -INFINITY : 0.0f; },
      [](int32_t delta) { return delta < 2000 && delta % 100 == 0 ? kNaN : 1.0f; },
  };
  enum class Keys { kFinite, kSomePaddingSomeNotFinite, kAllInfinite };
  for_each_level([&] {
    for (const Curve& curve : curves) {
      std::vector<float> s(43201);
      for (int32_t delta = 0; delta < 43201; ++delta) s[delta] = curve(delta);
      const TimeTable table(s);
      for (Keys keys : {Keys::kFinite, Keys::kSomePaddingSomeNotFinite, Keys::kAllInfinite}) {
        SearchFixture f(2, 3, 12000, 3);
        f.look_up({&table});
        for (int64_t q = 0; q < 6; ++q) f.queries[q * f.stride] = 1.0f;
        if (keys == Keys::kSomePaddingSomeNotFinite) {
          f.behaviours.mask = f.mask.data();
          for (int64_t i = 0; i < 24000; i += 3) f.mask[i] = 0;
          for (int64_t i = 100; i < 12000; i += 1000) f.keys[3 * i] = INFINITY;
          f.keys[3 * 9500] = -INFINITY;
          f.keys[3 * 9700] = kNaN;
          f.keys[3 * 9901] = 3e38f;
        } else if (keys == Keys::kAllInfinite) {
          for (int64_t i = 0; i < 24000; ++i) f.keys[3 * i] = INFINITY;
        }
        for (int64_t k : {1, 100, 600, 1500}) {
          const Found found = search(f, k, kTaskQueries, 1), best = best_of_scores(f, k);
          EXPECT_EQ(found.indices, best.indices);
          for (size_t i = 0; i < best.scores.size(); ++i) {
            ASSERT_TRUE(found.scores[i] == best.scores[i] ||
                        (std::isnan(found.scores[i]) && std::isnan(best.scores[i])));
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
    time_similarity_cpu(
        {{deltas.data(), false}, 43201, f.behaviours.time.clock[0].mlp, table.data()}, 0, 43201);
    const TimeTable time_table(std::move(table));
    f.look_up({&time_table});
    EXPECT_EQ(direct, search(f, 100, 1, 1));
  });
}

// s of places 0, 1, .. of a table, at the deltas that `delta` says.
template <class Delta>
std::vector<float> tabulated(const TimeMlp& mlp, int32_t size, const Delta& delta) {
  std::vector<int32_t> deltas(static_cast<size_t>(size));
  for (int32_t i = 0; i < size; ++i) deltas[i] = delta(i);
  std::vector<float> s(deltas.size());
  time_similarity_cpu({{deltas.data(), false}, size, mlp, s.data()}, 0, size);
  return s;
}

TEST(ClockGsu, TablesOfSeveralClocksChangeNoBit) {
  constexpr int32_t kDay = 43201, kWeek = 302401;
  const float weights[] = {0.5f, -1, 0, 1, 2, -0.75f, 1, -1, 0.25f, 0, -0.5f, 3, 1.5f, 0.125f};
  for_each_level([&] {
    for (int64_t candidates : {1, 40}) {
      SearchFixture f(2, candidates, 9000, 3);
      f.behaviours.mask = f.mask.data();
      for (int64_t i = 0; i < 18000; i += 7) f.mask[i] = 0;
      TimeTerm& time = f.behaviours.time;
      time.clocks = 3;
      const float *w = weights, *v = weights + 7;
      time.clock[1] = {604800, {w, w + 4, w + 5, w + 6, 1, 7200.0}, false};
      time.clock[2] = {kElapsed, {v, v + 4, v + 5, v + 6, 1, 60.0, true}, false};
      const auto same = [](int32_t i) { return i; };
      std::vector<float> of_day = tabulated(time.clock[0].mlp, kDay, same);
      std::vector<float> of_week = tabulated(time.clock[1].mlp, kWeek, same);
      std::vector<float> of_both = tabulated(time.clock[0].mlp, kWeek, [](int32_t i) {
        return std::min(i % 86400, 86400 - i % 86400);
      });
      for (int32_t i = 0; i < kWeek; ++i) of_both[i] += of_week[i];
      const TimeTable day(of_day), week(of_week), both(of_both, false, true);
      const TimeTable elapsed(tabulated(time.clock[2].mlp, kElapsedPlaces,
                                        [](int32_t i) { return elapsed_seconds(i); }),
                              true);
      for (int64_t k : {1, 100, 600}) {
        f.look_up({});
        const Found direct = search(f, k, kTaskQueries, 1);
        EXPECT_EQ(direct, best_of_scores(f, k));
        f.look_up({&day, &week, &elapsed});
        EXPECT_EQ(direct, search(f, k, kTaskQueries, 1));
        EXPECT_EQ(direct, search(f, k, 12, 3));
        time.lookups = 2;
        time.lookup[0] = {&both, 1};
        time.lookup[1] = {&elapsed, 2};
        time.clock[0].unread = true;
        EXPECT_EQ(direct, search(f, k, kTaskQueries, 1));
        time.clock[0].unread = false;
      }
    }
  });
}

}  // namespace
}  // namespace longclock
