// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/dtype.h"
#include "longclock/common/inline.h"
#include "longclock/time/time_term.h"

namespace longclock {

// Further columns of every behaviour, behind those of its row: a row of another table, or one of
// the behaviour's own.
struct Feature {
  const void* keys;    // rows of `dim` elements, unit stride, the dtype of the behaviours' keys
  int64_t row_stride;  // elements
  int64_t dim;
  IntArray ids;        // [positions], in [0, N) where the position counts; or none: one row each
  int64_t table_rows;  // N, where ids are given
};
constexpr int kMaxFeatures = 7;

// The histories that a search reads, whatever their layout: positions are rows of one flat list.
struct Behaviours {
  DType dtype;
  const void* keys;  // rows of `dim` elements, unit stride; the table [N, D] where ids are given
  int64_t key_row_stride;  // elements
  int64_t dim;             // D
  IntArray ids;            // [positions], in [0, N) where the position counts; or none
  IntArray key_time;       // [positions], seconds
  const uint8_t* mask;     // [positions], 0: not valid; or none
  bool exclude_future;     // key_time >= the query's time: not valid
  TimeTerm time;           // without clocks where nothing sees the time
  Feature features[kMaxFeatures];
  int feature_count;
  // Of rows of int8 and float8, which have no features: what an element stands for is itself times
  // its row's scale. The queries' elements are float32, bfloat16 or, of int8 rows, int8.
  const float* key_scale;  // [positions], or [N] where ids are given
  DType query_dtype;
};

// Columns of a behaviour, and of its features.
LONGCLOCK_INLINE int64_t full_width(const Behaviours& b) {
  int64_t width = b.dim;
  for (int i = 0; i < b.feature_count; ++i) width += b.features[i].dim;
  return width;
}

// Whether the behaviour at a position is valid for a query of `query_time`.
LONGCLOCK_INLINE bool is_valid(const Behaviours& b, int64_t position, int64_t query_time) {
  return (b.mask == nullptr || b.mask[position] != 0) &&
         !(b.exclude_future && b.key_time[position] >= query_time);
}

// The queries that look at one sequence or window at one moment.
struct Group {
  int64_t query_begin, query_end;
  int64_t query_time;  // seconds
  int64_t position;    // of the first behaviour
  int64_t key_offset;  // elements from keys to its row, without ids
  int64_t length;      // behaviours
  int64_t out_begin;   // elements from the scores [.., M] to the first query's
  int64_t out_stride;  // to the next query's; what lies past `length` is -inf
};

// Queries of a group, at most, whose products have the bits that each has alone: those of more are
// added up in another order.
inline constexpr int64_t kFewQueries = 15;

// Queries [query_begin, query_end) of one group against its behaviours [begin, end).
struct SearchTask {
  int64_t group;
  int64_t query_begin, query_end;
  int64_t begin, end;
  int64_t part;  // of the group's behaviours, 0 where they are not cut
};

// Queries done together by one task, at most: enough to pay for reading times and turning keys into
// panels, few enough that their scores for a block of keys, or their panels, stay in the
// second-level cache.
constexpr int64_t kTaskQueries = 256;

}  // namespace longclock
