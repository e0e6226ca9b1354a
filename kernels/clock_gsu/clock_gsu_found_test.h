// SPDX-License-Identifier: Apache-2.0
// For tests of clock_gsu: what it finds in a fixture's histories.
#pragma once

#include "longclock/clock_gsu/clock_gsu.h"
#include "longclock/search/search_test.h"

namespace longclock {

struct Found {
  std::vector<float> scores;
  std::vector<int64_t> indices;
  bool operator==(const Found&) const = default;
};

inline Found search(const SearchFixture& f, int64_t k, int64_t task_queries, int64_t parts) {
  const int64_t queries = f.sequences * f.candidates;
  Found found{std::vector<float>(queries * k), std::vector<int64_t>(queries * k)};
  std::vector<TopKEntry> entries(static_cast<size_t>(queries * parts * k));
  const auto tasks = f.tasks(task_queries, parts);
  const DotSearchParams p{{f.behaviours, f.groups.data(), tasks.data(), k, parts, entries.data(),
                           found.scores.data(), found.indices.data()},
                          f.queries.data(),
                          f.stride,
                          f.scale};
  clock_gsu_cpu(p, 0, static_cast<int64_t>(tasks.size()));
  if (parts > 1) search_merge_cpu(p, 0, queries);
  return found;
}

}  // namespace longclock
