// SPDX-License-Identifier: Apache-2.0
// Memory-bound: every key is read once and scores go to shared memory, 4 bytes a behaviour, so the
// cost hardly depends on the data. Keys come straight to registers where three blocks share a
// multiprocessor and each hides what the others wait for; where a launch has no more than two
// blocks for each, they are copied ahead.
#pragma once

#include "longclock/clock_gsu/clock_gsu.h"
#include "longclock/search/ahead_scorer.cuh"
#include "longclock/search/candidate_range.cuh"
#include "longclock/search/query_parts.cuh"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {

constexpr int kSelectorWarps = kSelectorThreads / kWarp;

template <class T, RowForm kForm, bool kFeatures>
__global__ void __launch_bounds__(kSelectorThreads,
                                  kForm == RowForm::kElements || kFeatures ? 2 : kTileBlocks)
    clock_gsu_kernel(const __grid_constant__ DeviceSearchTopKParams p, const SelectorPlan plan,
                     const int query_room) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  __shared__ SharedTimeTerm time;
  const QueryPart work = part_of_block(p);
  const unsigned q = work.query;
  if (p.only_alone && !is_alone(p.search, q)) return;
  __shared__ SequenceView view;
  load_view(p.search, [&] { return sequence_of(p.search, q); }, &view, &time);
  auto* const query = reinterpret_cast<QueryOf<T>*>(memory);
  if (kSharesQuery<T, kForm>) load_query<T>(p.search, q, query);
  __syncthreads();

  const TileScorer<T, kForm, kFeatures> scorer(p.search, q, view, query, time);
  BlockSelector best(&shared, reinterpret_cast<char*>(memory) + query_room, plan);
  select_part(p, work, plan, static_cast<unsigned>(view.length), best, [&](int at, int n) {
    for (int tile = warp_index() * kWarpRows; tile < n; tile += kSelectorThreads) {
      float score;
      const bool valid = scorer.score(at + tile, at + n, &score);
      best.push(tile + scorer.row(), valid ? ordered_score(score) : 0);
    }
  });
}

template <class T, RowForm kForm>
using ClockAhead = AheadScorer<T, kForm, kSelectorThreads>;

// The same of a launch whose blocks are all resident, two a multiprocessor at most. Copies begin
// before anything else that a block needs is there, and all threads read whose keys they are.
template <class T, RowForm kForm>
__global__ void __launch_bounds__(kSelectorThreads, 2)
    clock_gsu_ahead_kernel(const __grid_constant__ DeviceSearchTopKParams p,
                           const SelectorPlan plan, const int query_room, const int ahead_room) {
  if constexpr (kHasAsyncCopy) {
    extern __shared__ uint4 memory[];
    __shared__ BlockSelector::Shared shared;
    __shared__ SharedTimeTerm time;
    const QueryPart work = part_of_block(p);
    const unsigned q = work.query;
    if (p.only_alone && !is_alone(p.search, q)) return;
    auto* const query = reinterpret_cast<QueryOf<T>*>(memory);
    char* const ahead = reinterpret_cast<char*>(memory) + query_room;
    const SequenceView view = view_sequence(p.search, sequence_of(p.search, q));
    ClockAhead<T, kForm> scorer(p.search, q, view, query, time,
                                ahead + warp_index() * (ahead_room / kSelectorWarps));
    const int warp_tile = warp_index() * kWarpRows;
    const PartRange part = range_of(work, static_cast<unsigned>(view.length));
    scorer.begin(part.begin + warp_tile, part.begin + min(plan.capacity, part.end - part.begin));
    const TimeTerm& term = p.search.behaviours.time;
    if (threadIdx.x == 0) {
      read_query_clocks(p.search.clocks, term.clocks, view.query_time, &time);
    }
    load_time_mlps(term.clock[0].mlp, term.clocks, &time);
    load_query<T>(p.search, q, query);
    __syncthreads();

    BlockSelector best(&shared, ahead + ahead_room, plan);
    select_part(p, work, plan, static_cast<unsigned>(view.length), best, [&](int at, int n) {
      if (at != part.begin) scorer.begin(at + warp_tile, at + n);
      for (int tile = warp_tile; tile < n; tile += kSelectorThreads) {
        float score;
        const bool valid = scorer.score(at + tile, &score);
        best.push(tile + scorer.row(), valid ? ordered_score(score) : 0);
      }
    });
  }
}

template <class T, RowForm kForm>
int ahead_bytes(const DeviceSearchParams& p) {
  return kSelectorWarps * ahead_warp_bytes(ClockAhead<T, kForm>::steps_of(p.behaviours.dim));
}

// with(f) calls f(an element, a std::integral_constant<RowForm, ...>, std::bool_constant<whether
// there are features>) of the search.
template <class With>
int launch_clock_gsu(const DeviceSearchTopKParams& p, CudaStream stream, const With& with) {
  const DeviceSearchParams& search = p.search;
  const int query_room = query_bytes(search);
  const int static_bytes = static_cast<int>(sizeof(SharedTimeTerm)) + query_room;
  return launch_parts(p, static_bytes, stream, [&](const auto& start, int left) {
    with([&](auto element, auto form, auto features) {
      using T = decltype(element);
      if constexpr (form != RowForm::kElements && !features) {
        auto* const kernel = clock_gsu_ahead_kernel<T, form>;
        const int room = ahead_bytes<T, form>(search);
        bool can = false;
        if (room <= left && has_async_copy(kernel, &can) == 0 && can) {
          return start(kernel, query_room + room, query_room, room);
        }
      }
      start(clock_gsu_kernel<T, form, features>, query_room, query_room);
    });
  });
}

}  // namespace longclock
