// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "longclock/common/threads.h"
#include "longclock/common/value_checks.h"
#include "longclock/search/device_search.h"

namespace longclock {

// Which behaviours each query sees, whatever the layout. Dense: behaviours [s * M, s * M +
// lengths[s]), queries [s * C, (s + 1) * C). Ragged: behaviours [offsets[s], offsets[s + 1]).
// Windows: [starts[s], ends[s]). Queries [query_offsets[s], query_offsets[s + 1]) see these, or
// query s.
struct SequenceArrays {
  SearchLayout layout;
  int64_t sequences;        // S
  int64_t positions;        // S * M, or T
  int64_t queries;          // S * C, or Q
  int64_t columns;          // M: dense
  int64_t candidates;       // C: dense
  int64_t row_stride;       // elements from a behaviour's keys to the next's: flat, without ids
  int64_t sequence_stride;  // and from a sequence's to the next's: dense, without ids
  IntArray query_time;      // [S], seconds
  IntArray lengths;         // [S], or none: M; dense
  IntArray offsets;         // [S + 1]: ragged
  IntArray starts, ends;    // [S]: windows
  IntArray query_offsets;   // [S + 1], or none: flat
};

// The layout that the given ones of lengths, offsets, query_offsets, starts and ends tell, which
// must go together.
template <class Arguments>
SearchLayout layout_of(const char* op, const Arguments& a) {
  const bool starts = static_cast<bool>(a.starts), ends = static_cast<bool>(a.ends);
  const bool offsets = static_cast<bool>(a.offsets), flat = starts || offsets;
  check(starts == ends, op, ": ", starts ? "starts" : "ends", " must come with ",
        starts ? "ends" : "starts", " (windows), got ", starts ? "ends" : "starts", "=None");
  check(!(starts && offsets), op,
        ": starts must not be given with offsets; windows take starts and ends, ragged takes "
        "offsets");
  check(flat || !a.query_offsets, op,
        ": query_offsets must come with offsets (ragged), or starts and ends (windows), got "
        "neither");
  check(!flat || !a.lengths, op,
        ": lengths must be None for ragged and windows; it belongs to the dense layout");
  return starts ? SearchLayout::kWindows : offsets ? SearchLayout::kRagged : SearchLayout::kDense;
}

// The groups of all sequences, in order. The arrays' values are checked.
std::vector<Group> group_queries(const char* op, const SequenceArrays& arrays,
                                 const Threads& threads);

}  // namespace longclock
