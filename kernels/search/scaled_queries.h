// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/inline.h"

namespace longclock {

// Columns, at most, of rows that int8 queries are compared with: 1,024 products of -128 and 127 are
// less than 2^24, so their sum is exact as an integer and as a float.
inline constexpr int64_t kMaxInt8Dim = 1024;

// Elements from a query of int8 rows to the next: padded with zeros to a multiple of 16, and as
// many more, whose first is its scale.
LONGCLOCK_INLINE int64_t scaled_query_stride(int64_t dim) { return (dim + 15) / 16 * 16 + 16; }

// Queries of int8 rows as searches take them. What a query's elements stand for is themselves times
// a scale: 1, or, rounded to int8, the largest size of them over 127, to which they are divided and
// rounded to the nearest integer, ties to even. A query with an element that is not finite has the
// scale NaN, one whose scale is 0 is 0 everywhere.
struct ScaledQueriesParams {
  const float* queries;  // [Q, round_up(D, 16)], padded with zeros
  int64_t dim;           // D
  float scale;           // of the search, times which a query's is stored
  bool to_int8;
  float* out;  // [Q, scaled_query_stride(D)]
};

// Queries [begin, end).
void scaled_queries_cpu(const ScaledQueriesParams& params, int64_t begin, int64_t end);

}  // namespace longclock
