// SPDX-License-Identifier: Apache-2.0
// Into how many parts the rows of a selection are cut, a thread block each, so that no
// multiprocessor has much more to read than another.
#pragma once

#include <cstdint>

namespace longclock {

// Of each of `rows` rows, the longest with `longest` scores. Parts are so many that two blocks a
// multiprocessor are in flight, where rows are long enough for it, and not more than ten: those
// with which the busiest multiprocessor ends first.
constexpr int64_t balanced_parts(int64_t rows, int64_t longest, int64_t k,
                                 int64_t multiprocessors) {
  constexpr int64_t kMinPart =
      512;                         // scores of a part; and four times k, which a merge reads again
  constexpr int64_t kStart = 128;  // scores that are read while a block begins
  const int64_t shortest = 4 * k < kMinPart ? kMinPart : 4 * k;
  const auto at_most = [&](int64_t blocks) {
    const int64_t parts = blocks * multiprocessors / rows, most = longest / shortest;
    const int64_t fewer = parts < most ? parts : most;
    return fewer < 1 ? 1 : fewer;
  };
  int64_t best = 1, least = INT64_MAX;
  for (int64_t parts = at_most(2); parts <= at_most(10); ++parts) {
    const int64_t blocks = (rows * parts + multiprocessors - 1) / multiprocessors;
    const int64_t path = blocks * ((longest + parts - 1) / parts + kStart);
    if (path < least) best = parts, least = path;
  }
  return best;
}

}  // namespace longclock
