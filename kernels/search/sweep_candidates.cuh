// SPDX-License-Identifier: Apache-2.0
// Which candidates a block of a sweep has, and how they come to shared memory.
#pragma once

#include "longclock/search/candidate_tile.cuh"
#include "longclock/search/key_stages.cuh"
#include "longclock/search/many_candidates.h"

namespace longclock {

// Candidates of one sequence, a block's.
struct CandidateRange {
  int64_t sequence;
  int64_t query;  // the first
  int count;
};

// The queries of the task that look at sequence s, as sequence_of() says.
__device__ __forceinline__ QueryRange task_queries_of(const SweepParams& p, int64_t s) {
  const QueryRange all = queries_of(p.search, s);
  const int64_t begin = s == 0 ? 0 : all.begin;
  const int64_t end = s == p.search.sequences - 1 ? p.search.queries : all.end;
  return {clamp(begin, p.query_begin, p.query_end), clamp(end, p.query_begin, p.query_end)};
}

__device__ __forceinline__ void check_queries_of(const DeviceSearchParams& p, int64_t s) {
  if (!p.query_offsets) return;
  const int64_t begin = p.query_offsets[s], end = p.query_offsets[s + 1];
  device_check(0 <= begin && begin <= end && end <= p.queries && (s > 0 || begin == 0) &&
                   (s < p.sequences - 1 || end == p.queries),
               "query_offsets must run from 0 to Q and not decrease", "search");
}

// The candidates of tile `tile` of a task. Sequence i of a task has its first tile at
// (its first query) / kCandidates + i, which leaves room for all of them, and some tiles empty.
template <int kCandidates>
__device__ __forceinline__ CandidateRange candidates_of(const SweepParams& p, int64_t tile) {
  struct FirstTiles {
    const SweepParams& p;
    __device__ int64_t operator[](int64_t i) const {
      const QueryRange queries = task_queries_of(p, p.first_sequence + i);
      return (queries.begin - p.query_begin) / kCandidates + i;
    }
  };
  const FirstTiles first{p};
  const int64_t i = find_range(first, p.task_sequences - 1, tile);
  if (p.search.check) check_queries_of(p.search, p.first_sequence + i);
  const QueryRange queries = task_queries_of(p, p.first_sequence + i);
  const int64_t begin = queries.begin + (tile - first[i]) * kCandidates;
  const int64_t left = queries.end - begin;
  return {p.first_sequence + i, begin, static_cast<int>(clamp(left, 0, kCandidates))};
}

template <class T, int kRowBytes>
constexpr int kBlockCandidates = 2 * CandidateTile<T, kRowBytes>::kWarpCandidates;

// Swizzled rows of the candidates in shared memory, zeros where there are none.
template <class T, int kRowBytes>
__device__ __forceinline__ void load_candidates(const DeviceSearchParams& p,
                                                const CandidateRange& candidates, char* rows) {
  constexpr int kPieces = kRowBytes / 16, kAll = kBlockCandidates<T, kRowBytes> * kPieces;
  const bool aligned = reinterpret_cast<uintptr_t>(p.query) % 16 == 0;
  const int dim = static_cast<int>(p.query_dim);
  const auto place = [&](int i) { return rows + swizzled<kRowBytes>(i / kPieces, i % kPieces); };
  if (aligned && (sizeof(T) == 4 || !p.query_is_float)) {  // as they are, all copies in flight
    const T* const queries = static_cast<const T*>(p.query) + candidates.query * dim;
#pragma unroll 8
    for (int i = threadIdx.x; i < kAll; i += kSweepThreads) {
      const int row = i / kPieces, d = i % kPieces * kVector16<T>;
      const bool valid = row < candidates.count && d < dim;
      copy16_async(shared_address(place(i)), valid ? queries + row * dim + d : queries,
                   valid ? 16 : 0);
    }
    end_copy_group();
    wait_for_copies<0>();
    return;
  }
  for (int i = threadIdx.x; i < kAll; i += kSweepThreads) {
    const int row = i / kPieces, d = i % kPieces * kVector16<T>;
    const int64_t q = candidates.query + row;
    uint4 value = make_uint4(0, 0, 0, 0);
    if (row < candidates.count && d < dim) {
      value = aligned ? query_piece<T, true>(p, q, d, dim) : query_piece<T, false>(p, q, d, dim);
    }
    *reinterpret_cast<uint4*>(place(i)) = value;
  }
}

}  // namespace longclock
