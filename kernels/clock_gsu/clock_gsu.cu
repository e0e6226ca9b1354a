// SPDX-License-Identifier: Apache-2.0
// One block a query, or a part of its behaviours. Memory-bound: every key is read once, straight to
// registers, and scores go to a BlockSelector in shared memory, 4 bytes a behaviour, so the cost
// hardly depends on the data. Where there are fewer queries than multiprocessors a sequence is cut
// into parts, whose best are merged by a second launch.
#include "longclock/clock_gsu/clock_gsu.h"
#include "longclock/common/launch.cuh"
#include "longclock/search/tile_scorer.cuh"
#include "longclock/selection/block_selector.cuh"
#include "longclock/selection/topk_merge.h"

namespace longclock {
namespace {

template <class T, RowForm kForm>
__global__ void __launch_bounds__(kSelectorThreads, kForm == RowForm::kElements ? 2 : kTileBlocks)
    clock_gsu_kernel(const __grid_constant__ DeviceSearchTopKParams p, const SelectorPlan plan,
                     const int query_room) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  __shared__ SharedTimeMlp mlp;
  const unsigned parts = static_cast<unsigned>(p.parts), part = blockIdx.x % parts;
  const unsigned q = blockIdx.x / parts;
  __shared__ SequenceView view;
  if (threadIdx.x == 0) view = view_sequence(p.search, sequence_of(p.search, q));
  T* const query = reinterpret_cast<T*>(memory);
  if (kForm != RowForm::kElements) load_query(p.search, q, query);
  load_time_mlp(p.search.behaviours.mlp, &mlp);
  __syncthreads();

  const TileScorer<T, kForm> scorer(p.search, q, view, query, mlp);
  BlockSelector best(&shared, reinterpret_cast<char*>(memory) + query_room, plan);
  const unsigned length = static_cast<unsigned>(view.length), step = (length + parts - 1) / parts;
  const int begin = static_cast<int>(min(length, part * step));
  const int end = static_cast<int>(min(length, (part + 1) * step));
  for (int at = begin, n; at < end; at += n) {
    n = min(plan.capacity, end - at);
    best.begin();
    for (int tile = warp_index() * kWarpRows; tile < n; tile += kSelectorThreads) {
      float score;
      const bool valid = scorer.score(at + tile, at + n, &score);
      best.push(tile + scorer.row(), valid ? ordered_score(score) : 0);
    }
    best.end(n, [&](int i) { return at + i; });
  }
  if (parts > 1) {
    TopKEntry* const entries = p.entries + int64_t{blockIdx.x} * p.k;
    best.for_each_entry(p.k, [&](int64_t i, TopKEntry entry) { entries[i] = entry; });
  } else {
    best.write_sorted(p.k, p.scores + int64_t{q} * p.k, p.indices + int64_t{q} * p.k);
  }
}

}  // namespace

int launch_clock_gsu(const DeviceSearchTopKParams& p, CudaStream stream) {
  const DeviceSearchParams& search = p.search;
  if (search.queries == 0 || p.k == 0) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int query_room = query_bytes(search);
  const int64_t longest = search.longest();
  const SelectorPlan plan = plan_selector(
      (longest + p.parts - 1) / p.parts, p.k,
      static_cast<int>(sizeof(BlockSelector::Shared) + sizeof(SharedTimeMlp)) + query_room, device);
  const unsigned blocks = grid_of(search.queries * p.parts);
  const int bytes = plan.bytes() + query_room;
  cudaError_t error = cudaSuccess;
  const auto launch = [&](auto* kernel) {
    error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    kernel<<<blocks, kSelectorThreads, bytes, stream>>>(p, plan, query_room);
    error = cudaGetLastError();
  };
  LONGCLOCK_WITH_DTYPE(search.behaviours.dtype, T, with_row_form(search, [&](auto form) {
                         launch(clock_gsu_kernel<T, form>);
                       }));
  if (error != cudaSuccess || p.parts == 1) return error;
  return launch_topk_merge(
      {DType::kFloat32, p.entries, search.queries, p.parts, p.k, p.scores, p.indices}, stream);
}

}  // namespace longclock
