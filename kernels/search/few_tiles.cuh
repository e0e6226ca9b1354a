// SPDX-License-Identifier: Apache-2.0
// Tiles of few candidates: how they are cut, and what a block begins with, which is whose they are,
// the view of their sequence, and the queries in shared memory.
#pragma once

#include "longclock/search/candidate_range.cuh"
#include "longclock/search/few_scorer.cuh"
#include "longclock/search/few_tiles.h"
#include "longclock/selection/topk_parts.h"

namespace longclock {

constexpr int kFewThreads = 256;  // of a block
constexpr int kFewStart = 512;    // behaviours that are read while it begins with 16 queries
// Scores of two candidates in shared memory are so much further apart than a multiple of a warp
// that lanes of eight candidates meet no bank twice.
constexpr int kScoresApart = 20;

struct alignas(16) FewShared {
  SharedTimeTerm time;
  SequenceView view;
  CandidateRange candidates;
};

// The candidates of tile `tile`. By a warp.
__device__ __forceinline__ CandidateRange few_candidates_of(const DeviceSearchParams& p,
                                                            const FewTiles& tiles, unsigned tile) {
  if (tiles.windows) return candidates_of_window(p, tile, tiles.most);
  if (p.layout != SearchLayout::kDense) return candidates_of(p, tiles.task, tile, tiles.most);
  const unsigned of_sequence =
      (static_cast<unsigned>(p.candidates) + tiles.most - 1) / static_cast<unsigned>(tiles.most);
  const unsigned s = tile / of_sequence, first = tile % of_sequence * tiles.most;
  const int left = static_cast<int>(p.candidates - first);
  return {s, s * p.candidates + first, min(left, tiles.most), first == 0};
}

// The part of the block, of all tiles' first parts, all second parts and so on: tiles of candidates
// are neighbours, since those of a sequence read the same keys.
__device__ __forceinline__ unsigned few_part(const FewTiles& tiles) {
  return blockIdx.x / static_cast<unsigned>(tiles.count);
}

// By all threads, with a barrier at the end; false where the block has no candidates.
template <class T>
__device__ __forceinline__ bool begin_few(const DeviceSearchParams& p, const FewTiles& tiles,
                                          FewShared* shared, char* queries) {
  if (warp_index() == 0) {
    const unsigned tile = blockIdx.x % static_cast<unsigned>(tiles.count);
    const CandidateRange found = few_candidates_of(p, tiles, tile);
    if (lane_index() == 0) shared->candidates = found;
  }
  __syncthreads();
  const CandidateRange candidates = shared->candidates;
  if (candidates.count == 0) return false;
  load_view(p, [&] { return candidates.sequence; }, &shared->view, &shared->time);
  if constexpr (kInBytes<T>) {
    load_few_byte_queries<QueryOf<T>>(p, candidates.query, candidates.count, tiles.row_bytes,
                                      queries);
  } else {
    load_few_queries<T>(p, candidates.query, candidates.count, tiles.row_bytes, queries);
  }
  __syncthreads();
  return true;
}

// Whether queries share sequences, for all that the host can know.
inline bool shares_sequences(const DeviceSearchParams& search) {
  if (search.queries == 0 || search.sequences == 0) return false;
  if (search.layout == SearchLayout::kDense) return search.candidates > 1;
  return search.query_offsets || search.layout == SearchLayout::kWindows;
}

// Bytes from a query to the next in shared memory, such that those of two quads meet no bank twice;
// what is left holds the scale of one of int8.
inline int64_t few_row_bytes(const DeviceSearchParams& search) {
  return padded_query_bytes(search) + 64;
}

// Tiles of at most `most` candidates, of equal size where the host knows the counts. Without parts,
// which balanced_parts() says.
inline FewTiles few_tiles(const DeviceSearchParams& search, int64_t most) {
  FewTiles tiles{};
  tiles.most = static_cast<int>(most);
  tiles.row_bytes = static_cast<int>(few_row_bytes(search));
  tiles.task = query_task(search, 0, search.queries);
  tiles.count = search.queries / most + search.sequences;
  if (search.layout == SearchLayout::kDense) {
    const int64_t of_sequence = (search.candidates + most - 1) / most;
    tiles.most = static_cast<int>((search.candidates + of_sequence - 1) / of_sequence);
    tiles.count = of_sequence * search.sequences;
  }
  tiles.windows = search.layout == SearchLayout::kWindows && !search.query_offsets;
  if (tiles.windows) tiles.count = search.queries;
  return tiles;
}

}  // namespace longclock
