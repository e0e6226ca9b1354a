// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/group_queries.h"

namespace longclock {
namespace {

// Offsets [S + 1] run from 0 to `total` and never fall.
void check_offsets(const char* op, const char* argument, const IntArray& offsets, int64_t sequences,
                   const char* total_name, int64_t total) {
  check(offsets[0] == 0, op, ": ", argument, " must start at 0, got ", offsets[0]);
  for (int64_t s = 0; s < sequences; ++s) {
    check(offsets[s] <= offsets[s + 1], op, ": ", argument, " must not decrease, got ", offsets[s],
          " then ", offsets[s + 1], " at ", s + 1);
  }
  check(offsets[sequences] == total, op, ": ", argument, " must end at ", total_name, " = ", total,
        ", got ", offsets[sequences]);
}

// Whether a window's query is one more candidate of the request before it. As many of them are put
// together as have the bits that each has alone: what is next to a query must not change its
// scores.
bool shared(const Group& before, const Group& next) {
  return before.position == next.position && before.length == next.length &&
         before.query_time == next.query_time &&
         before.query_end - before.query_begin < kFewQueries;
}

std::vector<Group> dense_groups(const char* op, const SequenceArrays& a) {
  std::vector<Group> groups;
  groups.reserve(static_cast<size_t>(a.sequences));
  const int64_t m = a.columns, c = a.candidates;
  for (int64_t s = 0; s < a.sequences; ++s) {
    const int64_t length = a.lengths ? a.lengths[s] : m;
    check(length >= 0 && length <= m, op, ": lengths must be from 0 to M = ", m, ", got ", length,
          " at ", s);
    groups.push_back(
        {s * c, (s + 1) * c, a.query_time[s], s * m, s * a.sequence_stride, length, s * c * m, m});
  }
  return groups;
}

std::vector<Group> flat_groups(const char* op, const SequenceArrays& a) {
  std::vector<Group> groups;
  groups.reserve(static_cast<size_t>(a.sequences));
  const bool windows = a.layout == SearchLayout::kWindows;
  if (!windows) check_offsets(op, "offsets", a.offsets, a.sequences, "T", a.positions);
  if (a.query_offsets) {
    check_offsets(op, "query_offsets", a.query_offsets, a.sequences, "Q", a.queries);
  }
  int64_t scores = 0;
  for (int64_t s = 0; s < a.sequences; ++s) {
    const int64_t begin = windows ? a.starts[s] : a.offsets[s];
    const int64_t end = windows ? a.ends[s] : a.offsets[s + 1];
    check(begin >= 0 && begin <= end && end <= a.positions, op,
          ": starts and ends must satisfy 0 <= start <= end <= T = ", a.positions, ", got ", begin,
          " and ", end, " at ", s);
    const int64_t length = end - begin;
    check_count(op, windows ? "a window's length" : "a sequence's length", length);
    const int64_t first = a.query_offsets ? a.query_offsets[s] : s;
    const int64_t last = a.query_offsets ? a.query_offsets[s + 1] : s + 1;
    const Group group{first,  last,   a.query_time[s], begin, begin * a.row_stride,
                      length, scores, length};
    if (windows && !a.query_offsets && !groups.empty() && shared(groups.back(), group)) {
      groups.back().query_end = last;
    } else {
      groups.push_back(group);
    }
    scores += (last - first) * length;
  }
  return groups;
}

}  // namespace

std::vector<Group> group_queries(const char* op, const SequenceArrays& a, const Threads& threads) {
  parallel_elements(threads, a.sequences, [&](int64_t begin, int64_t end) {
    check_seconds(op, "query_time", a.query_time, nullptr, begin, end);
  });
  return a.layout == SearchLayout::kDense ? dense_groups(op, a) : flat_groups(op, a);
}

}  // namespace longclock
