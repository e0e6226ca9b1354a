// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "longclock/calls/array_search_test.h"

namespace longclock {
namespace {

std::string error_of(const ArraySearch& arguments, int64_t k = 5, int64_t outputs = 200) {
  std::vector<float> scores(static_cast<size_t>(outputs));
  std::vector<int64_t> indices(scores.size());
  try {
    search(arguments, k, scores, indices);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "none";
}

TEST(ArraySearchErrors, MistakesAreNamed) {
  const std::vector<int64_t> three{0, 1, 2};
  using Change = std::function<void(ArrayFixture*)>;
  const std::vector<std::pair<Change, std::string>> mistakes{
      {[](ArrayFixture* f) { f->search.query.dim = 11; },
       "search: query must have D = 12 in its last dimension to match keys, got [40, 11]"},
      {[](ArrayFixture* f) { f->search.query.dtype = DType::kFloat16; },
       "search: query must be float32 to match keys, got float16; give it as float32"},
      {[](ArrayFixture* f) { f->search.keys.data = nullptr; },
       "search: keys must point to its rows, [5000, 12], got a null pointer"},
      {[](ArrayFixture* f) { f->search.keys.rows = 4999; },
       "search: key_time must have shape [T] = [4999] to match keys, for there are no "
       "ids, got [5000]"},
      {[](ArrayFixture* f) { f->search.query.rows = 39; },
       "search: query must have S C rows, a multiple of S = 2, got 39"},
      {[&](ArrayFixture* f) { f->search.query_time = three; },
       "search: key_time must have S M elements, a multiple of S = 3, got 5000; for flat sequences "
       "give offsets, or starts and ends"},
      {[&](ArrayFixture* f) { f->search.lengths = three; },
       "search: lengths must have shape [S] = [2] to match query_time, got [3]"},
      {[&](ArrayFixture* f) { f->edges = {0, 2501}, f->search.lengths = f->edges; },
       "search: lengths must be from 0 to M = 2500, got 2501 at 1"},
      {[&](ArrayFixture* f) { f->search.ids = three; },
       "search: ids must have key_time's shape [5000], got [3]"},
      {[](ArrayFixture* f) { f->look_up(), f->ids[77] = 300; },
       "search: ids must be from 0 to N - 1 = 299, got 300 at position 77; mask what is not there"},
      {[](ArrayFixture* f) { f->search.mask = std::span(f->mask).first(9); },
       "search: mask must have key_time's shape [5000], got [9]"},
      {[&](ArrayFixture* f) { f->search.starts = three; },
       "search: starts must come with ends (windows), got ends=None"},
      {[&](ArrayFixture* f) { f->search.query_offsets = three; },
       "search: query_offsets must come with offsets (ragged), or starts and ends (windows), got "
       "neither"},
      {[&](ArrayFixture* f) { f->edges = {0, 2, 1}, f->search.offsets = f->edges; },
       "search: query_time must have shape [S] = [40] to match query, one a sequence; pass "
       "query_offsets for more, got [2]"},
      {[](ArrayFixture* f) { f->key_time[4] = 1'700'000'000'000; },
       "search: key_time must be seconds, from -10^11 to 10^11, got 1700000000000 at position 4; "
       "milliseconds are divided by 10^3"},
      {[](ArrayFixture* f) { f->search.time.periods = {}; },
       "search: periods must be of 1 to 4 clocks, got 0"},
      {[](ArrayFixture* f) { f->search.time.units = {0.0}; },
       "search: units must be a positive number of seconds, got 0; an hour is 3600"},
      {[](ArrayFixture* f) { f->search.time.b1 = {}; },
       "search: mlp b1 must have C h elements, with C = 1 clocks and h from 1 to 64, got 0"},
      {[](ArrayFixture* f) { f->search.time.w1 = f->search.time.b1; },
       "search: mlp w1 must have 4 elements to match b1, got 1"},
  };
  for (const auto& [change, text] : mistakes) {
    ArrayFixture f;
    f.dense(2);
    change(&f);
    EXPECT_EQ(error_of(f.search), text);
  }
  ArrayFixture f;
  f.dense(2);
  EXPECT_EQ(error_of(f.search, 4), "search: scores must have Q k = 160 elements, got 200");
  EXPECT_EQ(error_of(f.search, 2049),
            "search: k must be from 0 to 2048, got 2049; for more, score and sort");
  EXPECT_EQ(error_of(f.search), "none");
}

TEST(ArraySearchErrors, FeaturesAreNamed) {
  ArrayFixture f;
  f.dense(2);
  std::vector<int64_t> ids(f.kPositions, 0);
  std::vector<ArrayFeature> features(8);
  f.search.features = features;
  EXPECT_EQ(error_of(f.search), "search: features must be at most 7, got 8");
  f.search.features = std::span(features).first(2);
  features[0].keys = {f.keys.data(), 4999, 3};
  EXPECT_EQ(
      error_of(f.search),
      "search: features[0].keys must have a row for every behaviour, where it has no ids, got "
      "[4999, 3]");
  features[0].keys.rows = 5000;
  features[1] = {{DType::kFloat16, f.keys.data(), 10, 2, 2}, ids};
  EXPECT_EQ(error_of(f.search),
            "search: features[1].keys must be float32 to match keys, got float16");
  features[1].keys.dtype = DType::kFloat32;
  EXPECT_EQ(error_of(f.search),
            "search: query must have D = 17 in its last dimension to match keys, got [40, 12]");
  f.search.query = {f.keys.data(), f.kQueries, 17};
  EXPECT_EQ(error_of(f.search), "none");
  ids[3] = 10;
  EXPECT_EQ(
      error_of(f.search),
      "search: features[1].ids must be from 0 to N - 1 = 9, got 10 at position 3; mask what is "
      "not there");
  features[1].ids = {ids.data(), 9};
  EXPECT_EQ(error_of(f.search),
            "search: features[1].ids must have key_time's shape [5000], got [9]");
}

// The first of several mistakes, on any number of threads.
TEST(ArraySearchErrors, TheFirstMistakeIsNamed) {
  ArrayFixture f;
  f.dense(2);
  for (int64_t at = 10; at < f.kPositions; at += 10) f.key_time[at] = -1'700'000'000'000;
  std::vector<float> scores(f.kQueries);
  std::vector<int64_t> indices(f.kQueries);
  for (const int64_t count : {1, 4}) {
    try {
      search(f.search, 1, scores, indices, Threads{count});
      ADD_FAILURE();
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find("at position 10;"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace longclock
