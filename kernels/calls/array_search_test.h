// SPDX-License-Identifier: Apache-2.0
// For tests of searches over plain arrays: random behaviours in any layout, and what is right.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "longclock/calls/array_search.h"

namespace longclock {

inline constexpr float kNone = -std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Which behaviours a query sees, and when.
struct Seen {
  int64_t begin, end, now;
};

// 5,000 behaviours of small integers and 40 queries, so that products are exact in any order.
struct ArrayFixture {
  static constexpr int64_t kPositions = 5000, kQueries = 40, kDim = 12, kRows = 300;

  std::vector<float> keys, query, mlp{1, 0, 0, 0, -3, 2, 1};  // s = 1 + 2 relu(x - 3)
  std::vector<int64_t> key_time, query_time, ids;
  std::vector<uint8_t> mask;
  ArraySearch search;
  std::vector<Seen> seen;  // by each query
  int64_t columns = 0;     // M, where it is dense
  std::vector<int64_t> edges, ends, query_edges;

  ArrayFixture() : keys(kPositions * kDim), query(kQueries * kDim), mask(kPositions, 1) {
    std::mt19937 random(11);
    for (float& x : keys) x = static_cast<float>(random() % 9) - 4.0f;
    for (float& x : query) x = static_cast<float>(random() % 9) - 4.0f;
    for (int64_t i = 0; i < kPositions; ++i) {
      key_time.push_back(1'700'000'000 + static_cast<int64_t>(random() % 2'000'000));
      ids.push_back(static_cast<int64_t>(random() % kRows));
    }
    const std::span<const float> w(mlp);
    search.query = {query.data(), kQueries, kDim};
    search.keys = {keys.data(), kPositions, kDim};
    search.key_time = key_time;
    search.time.w1 = w.subspan(0, 4);
    search.time.b1 = w.subspan(4, 1);
    search.time.w2 = w.subspan(5, 1);
    search.time.b2 = w.subspan(6, 1);
    search.scale = 0.25;
  }
  ArrayFixture(const ArrayFixture&) = delete;

  void at(int64_t sequences) {
    for (int64_t s = 0; s < sequences; ++s) query_time.push_back(1'701'000'000 + 5000 * s);
    search.query_time = query_time;
  }
  void dense(int64_t sequences, std::vector<int64_t> lengths = {}) {
    at(sequences);
    columns = kPositions / sequences;
    edges = std::move(lengths);
    if (!edges.empty()) search.lengths = edges;
    for (int64_t q = 0; q < kQueries; ++q) {
      const int64_t s = q / (kQueries / sequences), begin = s * columns;
      seen.push_back({begin, begin + (edges.empty() ? columns : edges[s]), query_time[s]});
    }
  }
  void ragged(std::vector<int64_t> offsets, std::vector<int64_t> queries) {
    at(static_cast<int64_t>(offsets.size()) - 1);
    edges = std::move(offsets);
    query_edges = std::move(queries);
    search.offsets = edges;
    search.query_offsets = query_edges;
    for (size_t s = 0; s + 1 < edges.size(); ++s) see(s, edges[s], edges[s + 1]);
  }
  void windows(std::vector<int64_t> starts, std::vector<int64_t> behind,
               std::vector<int64_t> queries) {
    at(static_cast<int64_t>(starts.size()));
    edges = std::move(starts);
    ends = std::move(behind);
    query_edges = std::move(queries);
    search.starts = edges;
    search.ends = ends;
    if (query_edges.empty()) {  // a query each
      query_edges.resize(edges.size() + 1);
      std::iota(query_edges.begin(), query_edges.end(), 0);
    } else {
      search.query_offsets = query_edges;
    }
    for (size_t s = 0; s < edges.size(); ++s) see(s, edges[s], ends[s]);
  }
  void see(size_t s, int64_t begin, int64_t end) {
    for (int64_t q = query_edges[s]; q < query_edges[s + 1]; ++q) {
      seen.push_back({begin, end, query_time[s]});
    }
  }
  void look_up() {
    search.keys = {keys.data(), kRows, kDim};
    search.ids = ids;
  }
  void hide() {
    for (int64_t i = 0; i < kPositions; i += 3) mask[i] = 0;
    search.mask = mask;
    search.exclude_future = true;
  }

  bool valid(int64_t query_index, int64_t position) const {
    if (!search.mask.empty() && mask[position] == 0) return false;
    return !search.exclude_future || key_time[position] < seen[query_index].now;
  }
  double score(int64_t q, int64_t position) const {
    const int64_t row = search.ids ? ids[position] : position;
    double dot = 0;
    for (int64_t d = 0; d < kDim; ++d) {
      dot += double{keys[row * kDim + d]} * query[q * kDim + d];
    }
    const int64_t apart = std::llabs(key_time[position] - seen[q].now) % 86400;
    const double x = static_cast<double>(std::min(apart, 86400 - apart)) / 3600.0;
    return 0.25 * dot + 1.0 + 2.0 * std::max(x - 3.0, 0.0);
  }
};

struct FoundArrays {
  std::vector<float> scores;
  std::vector<int64_t> indices;

  FoundArrays(const ArraySearch& arguments, int64_t k, const Threads& threads = {})
      : scores(static_cast<size_t>(arguments.query.rows * k), kNaN), indices(scores.size(), -7) {
    search(arguments, k, scores, indices, threads);
  }
  bool operator==(const FoundArrays&) const = default;
};

inline std::vector<float> scored(const ArraySearch& arguments, const Threads& threads = {}) {
  std::vector<float> scores(static_cast<size_t>(score_count(arguments)), kNaN);
  score(arguments, scores, threads);
  return scores;
}

}  // namespace longclock
