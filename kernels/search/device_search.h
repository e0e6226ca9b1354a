// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/search/behaviours.h"

namespace longclock {

enum class SearchLayout : int8_t { kDense, kRagged, kWindows };

// A search whose arrays lie on a device: the host reads none of them, kernels clamp what does not
// fit. It says what Behaviours and Groups say on the CPU.
struct DeviceSearchParams {
  Behaviours behaviours;  // without tables of s
  int64_t table_rows;     // N, where ids are given
  unsigned row_bytes;     // from a row of keys to the next
  SearchLayout layout;
  int64_t sequences;    // S
  int64_t queries;      // Q, or S * C
  int64_t positions;    // S * M, or T
  const void* query;    // [Q, query_dim], contiguous
  int64_t query_dim;    // D and the columns of all features
  bool query_is_float;  // else the keys' dtype, to which an fp32 query is rounded when it is read
  DType given_query;    // of int8 keys: before it is rounded to behaviours.query_dtype
  IntArray query_time;  // [S], seconds
  DeviceClock clocks[kMaxClocks];  // of behaviours.time
  float scale;
  bool check;     // assert in place of clamping
  bool filtered;  // there is a mask, or exclude_future

  // Dense: behaviours [s * M, s * M + lengths[s]), queries [s * C, (s + 1) * C).
  int64_t columns;         // M
  int64_t candidates;      // C
  int64_t sequence_bytes;  // from a sequence's keys to the next's, without ids
  IntArray lengths;        // [S], or none: M

  // Ragged: behaviours [offsets[s], offsets[s + 1]). Windows: [starts[s], ends[s]). Queries
  // [query_offsets[s], query_offsets[s + 1]) see them, or query s.
  IntArray offsets;        // [S + 1]
  IntArray starts, ends;   // [S]
  IntArray query_offsets;  // [S + 1], or none

  // Where each query's scores begin in a flat result; [Q + 1], or none: dense rows of M, or ragged
  // with one query a sequence, whose scores lie where its behaviours do.
  const int64_t* score_begin;
  int64_t score_count;  // elements of the result

  // The most behaviours that a sequence may have, for all that the host can know.
  LONGCLOCK_INLINE int64_t longest() const {
    return layout == SearchLayout::kDense ? columns : positions;
  }
};

}  // namespace longclock
