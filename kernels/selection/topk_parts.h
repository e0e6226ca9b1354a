// SPDX-License-Identifier: Apache-2.0
// Into how many parts the rows of a selection are cut, a thread block each, so that no
// multiprocessor has much more to read than another.
#pragma once

#include <cstdint>

namespace longclock {

// Of each of `rows` rows, the longest with `longest` scores: with so many parts the busiest
// multiprocessor ends first. A block alone has too few loads on their way and takes half as long
// again; ten that follow each other even out.
constexpr int64_t balanced_parts(int64_t rows, int64_t longest, int64_t k,
                                 int64_t multiprocessors) {
  constexpr int64_t kMinPart = 1024;  // scores, and four times k, which a merge reads again
  constexpr int64_t kStart = 128;     // scores that are read while a block begins
  const int64_t shortest = 4 * k < kMinPart ? kMinPart : 4 * k;
  const auto at_most = [&](int64_t blocks) {
    const int64_t parts = blocks * multiprocessors / rows, most = longest / shortest;
    const int64_t fewer = parts < most ? parts : most;
    return fewer < 1 ? 1 : fewer;
  };
  int64_t best = 1, least = INT64_MAX;
  for (int64_t parts = at_most(1); parts <= at_most(10); ++parts) {
    const int64_t blocks = (rows * parts + multiprocessors - 1) / multiprocessors;
    const int64_t halves = (blocks == 1 ? 3 : 2 * blocks);
    const int64_t path = halves * ((longest + parts - 1) / parts + kStart);
    if (path < least) best = parts, least = path;
  }
  return best;
}

}  // namespace longclock
