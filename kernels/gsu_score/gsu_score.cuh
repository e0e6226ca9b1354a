// SPDX-License-Identifier: Apache-2.0
// Warps take tiles of 32 behaviours of a query in turn. Memory-bound: keys are read once for a
// query. What shares its keys with others goes to gsu_score_few.cuh, or to the sweeps.
#pragma once

#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/candidate_range.cuh"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {

constexpr int kGsuScoreThreads = 256;

template <class T, RowForm kForm, bool kFeatures>
__global__ void __launch_bounds__(kGsuScoreThreads,
                                  kForm == RowForm::kElements || kFeatures ? 2 : kTileBlocks)
    gsu_score_kernel(const __grid_constant__ DeviceSearchParams p, int parts, bool only_alone,
                     float* __restrict__ scores) {
  extern __shared__ uint4 memory[];
  __shared__ SharedTimeTerm time;
  const int64_t q = blockIdx.x / static_cast<unsigned>(parts);
  const int part = static_cast<int>(blockIdx.x % static_cast<unsigned>(parts));
  if (only_alone && !is_alone(p, q)) return;
  __shared__ SequenceView view;
  load_view(p, [&] { return sequence_of(p, q); }, &view, &time);
  auto* const query = reinterpret_cast<QueryOf<T>*>(memory);
  if (kSharesQuery<T, kForm>) load_query<T>(p, q, query);
  __syncthreads();

  const TileScorer<T, kForm, kFeatures> scorer(p, q, view, query, time);
  const int64_t begin = scores_of(p, q, view);
  const int step = parts * kGsuScoreThreads;
  for (int64_t at = part * kGsuScoreThreads + warp_index() * kWarpRows; at < view.length;
       at += step) {
    const unsigned length = view.length, tile = static_cast<unsigned>(at);
    float score;
    const bool valid = scorer.score(tile, length, &score);
    const unsigned m = scorer.behaviour(tile);
    if (m < length && begin + m < p.score_count) scores[begin + m] = valid ? score : -INFINITY;
  }
  // What lies past the last behaviour: of a dense row; of a flat result that is too long.
  const int64_t end = p.layout == SearchLayout::kDense ? begin + p.columns
                      : q == p.queries - 1             ? p.score_count
                                                       : 0;
  for (int64_t at = begin + view.length + part * kGsuScoreThreads + threadIdx.x; at < end;
       at += step) {
    scores[at] = -INFINITY;
  }
}

// with(f) calls f(an element, a std::integral_constant<RowForm, ...>, std::bool_constant<whether
// there are features>) of the search.
template <class With>
int launch_gsu_score_alone(const DeviceSearchParams& p, bool only_alone, float* scores,
                           CudaStream stream, const With& with) {
  const int query_room = query_bytes(p);
  // Blocks of a query, for behaviours in proportion: about 1,024 each.
  const int64_t scores_a_query = p.score_count / p.queries;
  const int parts = static_cast<int>(min(scores_a_query / 1024 + 1, int64_t{1} << 20));
  const unsigned blocks = grid_of(p.queries * parts);
  with([&](auto element, auto form, auto features) {
    gsu_score_kernel<decltype(element), form, features>
        <<<blocks, kGsuScoreThreads, query_room, stream>>>(p, parts, only_alone, scores);
  });
  return cudaGetLastError();
}

}  // namespace longclock
