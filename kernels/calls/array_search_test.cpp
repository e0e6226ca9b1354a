// SPDX-License-Identifier: Apache-2.0
#include "longclock/calls/array_search_test.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

// All scores are near those in double, and what is found are the best of them, bit for bit, on one
// thread and on several, whoever has them.
void expect_right(const ArrayFixture& f, int64_t k) {
  const std::vector<float> scores = scored(f.search);
  const FoundArrays found(f.search, k);
  int64_t at = 0;
  for (int64_t q = 0; q < f.kQueries; ++q) {
    const auto& [begin, end, now] = f.seen[q];
    std::vector<std::pair<float, int64_t>> best;
    for (int64_t i = 0; i < end - begin; ++i) {
      const bool valid = f.valid(q, begin + i);
      if (valid) {
        ASSERT_NEAR(scores[at + i], f.score(q, begin + i), 1e-4) << q << ' ' << i;
        best.push_back({-scores[at + i], i});
      } else {
        ASSERT_EQ(scores[at + i], kNone) << q << ' ' << i;
      }
    }
    at += f.columns > 0 ? f.columns : end - begin;
    std::sort(best.begin(), best.end());
    best.resize(static_cast<size_t>(k), {-kNone, -1});
    for (int64_t i = 0; i < k; ++i) {
      ASSERT_EQ(found.scores[q * k + i], -best[i].first) << q << ' ' << i;
      ASSERT_EQ(found.indices[q * k + i], best[i].second) << q << ' ' << i;
    }
  }
  EXPECT_EQ(at, static_cast<int64_t>(scores.size()));
  const Threads four{4}, in_turn{4, [](int64_t, const std::function<void()>& body) { body(); }};
  for (const Threads& threads : {four, in_turn}) {
    EXPECT_EQ(scored(f.search, threads), scores);
    EXPECT_EQ(FoundArrays(f.search, k, threads), found);
  }
}

using Layout = void (*)(ArrayFixture*);
constexpr std::pair<const char*, Layout> kLayouts[] = {
    {"dense, a candidate", [](ArrayFixture* f) { f->dense(40); }},
    {"dense, candidates", [](ArrayFixture* f) { f->dense(2); }},
    {"dense, lengths", [](ArrayFixture* f) { f->dense(4, {0, 1250, 7, 1}); }},
    {"ragged", [](ArrayFixture* f) { f->ragged({0, 0, 10, 3000, 5000}, {0, 1, 5, 5, 40}); }},
    {"windows", [](ArrayFixture* f) { f->windows({4, 0, 100}, {4, 5000, 3000}, {0, 2, 30, 40}); }},
};

TEST(ArraySearch, FindsTheBestInEveryLayout) {
  for (const auto& layout : kLayouts) {
    for (int options = 0; options < 4; ++options) {
      SCOPED_TRACE(std::string(layout.first) + (options & 1 ? ", ids" : "") +
                   (options & 2 ? ", mask" : ""));
      for_each_level([&] {
        ArrayFixture f;
        layout.second(&f);
        if (options & 1) f.look_up();
        if (options & 2) f.hide();
        expect_right(f, 20);
      });
    }
  }
}

TEST(ArraySearch, FindsAllWhereKIsMore) {
  ArrayFixture f;
  f.dense(4, {0, 1250, 7, 1});
  expect_right(f, 2000);
}

TEST(ArraySearch, WindowsNextToEachOtherHaveAQueryEach) {
  ArrayFixture f;
  f.windows(std::vector<int64_t>(40, 20), std::vector<int64_t>(40, 4000), {});
  for (int64_t q = 0; q < 40; ++q) f.seen[q].now = f.query_time[q] = f.query_time[q / 20];
  expect_right(f, 10);
}

// A row that is cut into several tables is the same row.
TEST(ArraySearch, FeaturesAreFurtherColumns) {
  constexpr int64_t kFirst = 5, kOthers = ArrayFixture::kDim - kFirst;
  for (const bool by_ids : {false, true}) {
    ArrayFixture f;
    f.windows({4, 0, 100}, {4, 5000, 3000}, {0, 2, 30, 40});
    if (by_ids) f.look_up();
    f.hide();
    const FoundArrays found(f.search, 10);
    const std::vector<float> scores = scored(f.search);
    f.search.keys.dim = kFirst;  // of rows as far apart as before
    const float* const others = f.keys.data() + kFirst;
    const ArrayFeature features[] = {
        {{others, f.search.keys.rows, 3, f.kDim}, f.search.ids},
        {{others + 3, f.search.keys.rows, kOthers - 3, f.kDim}, f.search.ids}};
    f.search.features = features;
    EXPECT_EQ(FoundArrays(f.search, 10), found);  // small integers: exact in any order
    EXPECT_EQ(scored(f.search, Threads{4}), scores);
  }
}

TEST(ArraySearch, TakesIntegersOf32Bits) {
  ArrayFixture f;
  f.windows({4, 0, 100}, {4, 5000, 3000}, {0, 2, 30, 40});
  f.look_up();
  const FoundArrays found(f.search, 10);
  const auto narrow = [](const std::vector<int64_t>& from) {
    return std::vector<int32_t>(from.begin(), from.end());
  };
  const auto key_time = narrow(f.key_time), query_time = narrow(f.query_time), ids = narrow(f.ids),
             starts = narrow(f.edges), ends = narrow(f.ends), queries = narrow(f.query_edges);
  f.search.key_time = key_time;
  f.search.query_time = query_time;
  f.search.ids = ids;
  f.search.starts = starts;
  f.search.ends = {ends.data(), static_cast<int64_t>(ends.size())};
  f.search.query_offsets = queries;
  EXPECT_EQ(FoundArrays(f.search, 10), found);
}

TEST(ArraySearch, RowsMayLieApart) {
  ArrayFixture f;
  f.dense(1);
  const FoundArrays found(f.search, 10);
  std::vector<float> keys(f.kPositions * 16, kNaN), query(f.kQueries * 20, kNaN);
  for (int64_t i = 0; i < f.kPositions; ++i) {
    std::copy_n(&f.keys[i * f.kDim], f.kDim, &keys[i * 16]);
  }
  for (int64_t q = 0; q < f.kQueries; ++q)
    std::copy_n(&f.query[q * f.kDim], f.kDim, &query[q * 20]);
  f.search.keys = {keys.data(), f.kPositions, f.kDim, 16};
  f.search.query = {query.data(), f.kQueries, f.kDim, 20};
  EXPECT_EQ(FoundArrays(f.search, 10), found);
}

// Queries whose rows are whole vectors are read where they lie.
TEST(ArraySearch, WholeRowsOfQueriesAreNotCopied) {
  ArrayFixture f;
  f.dense(1);
  std::vector<float> keys(f.kPositions * 16), query(f.kQueries * 16);
  for (int64_t i = 0; i < f.kPositions; ++i) {
    std::copy_n(&f.keys[i * f.kDim], f.kDim, &keys[i * 16]);
  }
  for (int64_t q = 0; q < f.kQueries; ++q)
    std::copy_n(&f.query[q * f.kDim], f.kDim, &query[q * 16]);
  const FoundArrays found(f.search, 10);
  f.search.keys = {keys.data(), f.kPositions, 16};
  f.search.query = {query.data(), f.kQueries, 16};
  EXPECT_EQ(FoundArrays(f.search, 10), found);  // what is more is zeros
}

TEST(ArraySearch, QueriesAreRoundedToTheKeys) {
  ArrayFixture f;
  f.dense(2);
  std::vector<BFloat16> keys;
  for (const float x : f.keys)
    keys.push_back({static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16)});
  const FoundArrays found(f.search, 10);
  f.search.keys = {keys.data(), f.kPositions, f.kDim};
  EXPECT_EQ(FoundArrays(f.search, 10).indices, found.indices);  // small integers are exact
  const FoundArrays exact(f.search, 10);
  for (float& x : f.query) x = std::nextafter(x, 100.0f);
  EXPECT_EQ(FoundArrays(f.search, 10), exact);
}

TEST(ArraySearch, NaNIsTheBest) {
  ArrayFixture f;
  f.dense(1);
  f.keys[4000 * f.kDim] = f.keys[9 * f.kDim + 3] = kNaN;
  const FoundArrays found(f.search, 3);
  for (int64_t q = 0; q < f.kQueries; ++q) {
    EXPECT_EQ(found.indices[q * 3], 9);
    EXPECT_EQ(found.indices[q * 3 + 1], 4000);
    EXPECT_TRUE(std::isnan(found.scores[q * 3]));
    EXPECT_FALSE(std::isnan(found.scores[q * 3 + 2]));
  }
}

TEST(ArraySearch, SeveralClocksAddUp) {
  ArrayFixture f;
  f.dense(1);
  const std::vector<float> day = scored(f.search);
  const std::vector<float> w1{1, 0, 0, 0, 0, 0, 0, 0}, b1{-3, 0}, w2{2, 0}, b2{1, 0.5f};
  f.search.time = {w1, b1, w2, b2, {86400, kElapsed}, {3600.0, 60.0}};
  const std::vector<float> both = scored(f.search);
  for (size_t i = 0; i < day.size(); ++i) ASSERT_NEAR(both[i], day[i] + 0.5f, 1e-4) << i;
}

TEST(ArraySearch, NothingIsFoundInNothing) {
  ArrayFixture f;
  const std::vector<int64_t> none;
  f.search.key_time = none;
  f.search.keys = {f.keys.data(), 0, f.kDim};
  f.at(f.kQueries);
  const FoundArrays found(f.search, 4);  // 40 empty histories
  EXPECT_EQ(found.indices, std::vector<int64_t>(160, -1));
  EXPECT_EQ(found.scores, std::vector<float>(160, kNone));
  EXPECT_EQ(score_count(f.search), 0);
  f.search.query_time = none;
  f.search.query = {DType::kFloat32, nullptr, 0, f.kDim, f.kDim};
  EXPECT_TRUE(FoundArrays(f.search, 4).indices.empty());
  ArrayFixture full;
  full.dense(2);
  EXPECT_TRUE(FoundArrays(full.search, 0).indices.empty());
}

TEST(ArraySearch, ThreadsCallAtOnce) {
  ArrayFixture f;
  f.dense(4, {0, 1250, 7, 1});
  const FoundArrays found(f.search, 20);
  std::vector<int> equal(4);
  std::vector<std::thread> threads;
  for (int& each : equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) each += FoundArrays(f.search, 20, Threads{2}) == found;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, std::vector<int>(4, 10));
}

}  // namespace
}  // namespace longclock
