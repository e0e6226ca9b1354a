// SPDX-License-Identifier: Apache-2.0
// For tests of gsu_score and clock_gsu: random dense histories and their scores in double.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "longclock/search/behaviours.h"

namespace longclock {

struct SearchFixture {
  int64_t sequences, candidates, length, dim, stride;
  std::vector<float> keys, queries, mlp;
  std::vector<int64_t> times;
  std::vector<uint8_t> mask;
  std::vector<Group> groups;
  Behaviours behaviours{};
  float scale = 0.25f;

  // Integers, so that sums are exact in any order, and s = 2 [x > 3] up to rounding of x alone.
  SearchFixture(int64_t s, int64_t c, int64_t m, int64_t d)
      : sequences(s), candidates(c), length(m), dim(d), stride((d + 15) / 16 * 16) {
    std::mt19937 random(11);
    keys.resize(s * m * d);
    queries.resize(s * c * stride);
    times.resize(s * m);
    mask.assign(s * m, 1);
    for (float& x : keys) x = static_cast<float>(random() % 9) - 4.0f;
    for (int64_t row = 0; row < s * c; ++row) {
      for (int64_t i = 0; i < d; ++i)
        queries[row * stride + i] = static_cast<float>(random() % 9) - 4;
    }
    for (int64_t& t : times) t = static_cast<int64_t>(random() % 2000000000);
    mlp = {1, 0, 0, 0, -3, 2, 1};  // w1 [1, 4], b1, w2, b2: s = 1 + 2 relu(x - 3)
    behaviours.dtype = DType::kFloat32;
    behaviours.keys = keys.data();
    behaviours.key_row_stride = d;
    behaviours.dim = d;
    behaviours.key_time = {times.data(), true};
    const float* w = mlp.data();
    behaviours.time.clocks = 1;
    behaviours.time.clock[0] = {86400, {w, w + 4, w + 5, w + 6, 1, 3600.0}, false};
    for (int64_t i = 0; i < s; ++i) {
      groups.push_back(
          {i * c, (i + 1) * c, 1700000000 + 5000 * i, i * m, i * m * d, m, i * c * m, m});
    }
  }

  // s by tables, one a clock.
  void look_up(std::initializer_list<const TimeTable*> tables) {
    behaviours.time.lookups = 0;
    for (const TimeTable* table : tables) {
      const int clock = behaviours.time.lookups++;
      behaviours.time.lookup[clock] = {table, clock};
    }
  }

  bool valid(int64_t sequence, int64_t m) const {
    const int64_t at = sequence * length + m;
    return (behaviours.mask == nullptr || mask[at] != 0) &&
           !(behaviours.exclude_future && times[at] >= groups[sequence].query_time);
  }

  double score(int64_t query, int64_t m) const {
    const int64_t sequence = query / candidates, at = sequence * length + m;
    const int64_t apart = std::llabs(times[at] % 86400 - groups[sequence].query_time % 86400);
    const double x = static_cast<double>(std::min(apart, 86400 - apart)) / 3600.0;
    double dot = 0;
    for (int64_t i = 0; i < dim; ++i) {
      dot += double{keys[at * dim + i]} * queries[query * stride + i];
    }
    return scale * dot + 1.0 + 2.0 * std::max(x - 3.0, 0.0);
  }

  std::vector<SearchTask> tasks(int64_t task_queries, int64_t parts) const {
    std::vector<SearchTask> out;
    const int64_t step = (length + parts - 1) / parts;
    for (int64_t g = 0; g < sequences; ++g) {
      for (int64_t q = groups[g].query_begin; q < groups[g].query_end; q += task_queries) {
        for (int64_t part = 0; part < parts; ++part) {
          out.push_back({g, q, std::min(q + task_queries, groups[g].query_end),
                         std::min(part * step, length), std::min((part + 1) * step, length), part});
        }
      }
    }
    return out;
  }
};

}  // namespace longclock
