// SPDX-License-Identifier: Apache-2.0
// Into how many parts the rows of a selection are cut, a thread block each, so that no
// multiprocessor has much more to read than another.
#pragma once

#include <cstdint>

namespace longclock {

// What a part costs besides reading its scores, as scores.
struct PartCosts {
  int64_t start;     // that are read while a block begins
  int64_t shortest;  // part that pays
};

// Of a part that leaves its k best: a merge reads them again.
constexpr PartCosts topk_part_costs(int64_t k, int64_t start) {
  constexpr int64_t kShortest = 1024;
  return {start, 4 * k < kShortest ? kShortest : 4 * k};
}

// Of each of `rows` rows, the longest with `longest` scores: with so many parts the busiest
// multiprocessor ends first. A block alone has too few loads on their way and takes half as long
// again; ten that follow each other even out.
constexpr int64_t balanced_parts(int64_t rows, int64_t longest, const PartCosts& costs,
                                 int64_t multiprocessors) {
  const auto at_most = [&](int64_t blocks) {
    const int64_t parts = blocks * multiprocessors / rows, most = longest / costs.shortest;
    const int64_t fewer = parts < most ? parts : most;
    return fewer < 1 ? 1 : fewer;
  };
  int64_t best = 1, least = INT64_MAX;
  for (int64_t parts = at_most(1); parts <= at_most(10); ++parts) {
    const int64_t blocks = (rows * parts + multiprocessors - 1) / multiprocessors;
    const int64_t halves = (blocks == 1 ? 3 : 2 * blocks);
    const int64_t path = halves * ((longest + parts - 1) / parts + costs.start);
    if (path < least) best = parts, least = path;
  }
  return best;
}

}  // namespace longclock
