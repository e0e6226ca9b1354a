// SPDX-License-Identifier: Apache-2.0
// Memory-bound: every key is read once, straight to registers, and scores go to shared memory, 4
// bytes a behaviour, so the cost hardly depends on the data.
#include "longclock/clock_gsu/clock_gsu.h"
#include "longclock/search/candidate_range.cuh"
#include "longclock/search/query_parts.cuh"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {
namespace {

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
  T* const query = reinterpret_cast<T*>(memory);
  if (kForm != RowForm::kElements) load_query(p.search, q, query);
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

}  // namespace

int launch_clock_gsu(const DeviceSearchTopKParams& p, CudaStream stream) {
  const DeviceSearchParams& search = p.search;
  const int query_room = query_bytes(search);
  const int static_bytes = static_cast<int>(sizeof(SharedTimeTerm)) + query_room;
  return launch_parts(p, static_bytes, stream, [&](const auto& start) {
    LONGCLOCK_WITH_DTYPE(search.behaviours.dtype, T,
                         with_row_form(search, [&](auto form, auto features) {
                           start(clock_gsu_kernel<T, form, features>, query_room, query_room);
                         }));
  });
}

}  // namespace longclock
