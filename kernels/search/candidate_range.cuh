// SPDX-License-Identifier: Apache-2.0
// Which candidates a block has, of the queries that look at one sequence.
#pragma once

#include "longclock/search/query_task.h"
#include "longclock/search/sequence_view.cuh"

namespace longclock {

// Candidates of one sequence, a block's.
struct CandidateRange {
  int64_t sequence;
  int64_t query;  // the first
  int count;
  bool first;  // of the sequence's, in a task
};

__device__ __forceinline__ void check_queries_of(const DeviceSearchParams& p, int64_t s) {
  if (!p.query_offsets) return;
  const int64_t begin = p.query_offsets[s], end = p.query_offsets[s + 1];
  device_check(0 <= begin && begin <= end && end <= p.queries && (s > 0 || begin == 0) &&
                   (s < p.sequences - 1 || end == p.queries),
               "query_offsets must run from 0 to Q and not decrease", "search");
}

// The candidates of tile `tile` of a task, `most` or fewer. Sequence i of a task has its first tile
// at (its first query) / most + i, which leaves room for all of them, and some tiles empty.
__device__ __forceinline__ CandidateRange candidates_of(const DeviceSearchParams& p,
                                                        const QueryTask& task, int64_t tile,
                                                        int most) {
  // In the task, whose queries 32 bits hold.
  const auto first_tile = [&](int64_t s, int64_t begin) {
    return static_cast<uint32_t>(begin - task.begin) / static_cast<uint32_t>(most) + s -
           task.first_sequence;
  };
  const auto [s, queries] =
      find_owner(p, task.first_sequence, task.sequences, {task.begin, task.end},
                 [&](int64_t behind, int64_t begin) { return first_tile(behind, begin) <= tile; });
  if (p.check) check_queries_of(p, s);
  const int64_t first = first_tile(s, queries.begin);
  const int64_t begin = queries.begin + (tile - first) * most;
  return {s, begin, static_cast<int>(clamp(queries.end - begin, 0, most)), tile == first};
}

// Whether query q sees the same window as the one before it, at the same time, where each query has
// a window.
__device__ __forceinline__ bool follows(const DeviceSearchParams& p, int64_t q) {
  return q > 0 && q < p.queries && p.starts[q] == p.starts[q - 1] && p.ends[q] == p.ends[q - 1] &&
         p.query_time[q] == p.query_time[q - 1];
}

// Whether no neighbour sees the window of query q.
__device__ __forceinline__ bool is_alone(const DeviceSearchParams& p, int64_t q) {
  return !follows(p, q) && !follows(p, q + 1);
}

// Query q and those behind it that see its window, `most` or fewer; none where q is alone, or is
// among those of a query before it. Runs are cut at multiples of kLongestRun. By a warp.
__device__ __forceinline__ CandidateRange candidates_of_window(const DeviceSearchParams& p,
                                                               int64_t q, int most) {
  constexpr int kLongestRun = 256;
  const auto begins = [&](int64_t at) { return at % kLongestRun == 0 || !follows(p, at); };
  int64_t first = q;  // of the run
  for (unsigned found = 0; found == 0;) {
    const int64_t at = first - lane_index();
    found = __ballot_sync(kAllLanes, at < 0 || begins(at));
    first -= found == 0 ? kWarp : __ffs(static_cast<int>(found)) - 1;
  }
  const int64_t next = q + 1 + lane_index();
  const unsigned end =
      __ballot_sync(kAllLanes, lane_index() + 1 >= most || next >= p.queries || begins(next));
  const bool leads = (q - first) % most == 0 && !is_alone(p, q);
  return {q, q, leads ? __ffs(static_cast<int>(end)) : 0, q == first};
}

}  // namespace longclock
