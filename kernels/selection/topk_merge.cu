// SPDX-License-Identifier: Apache-2.0
// The best k of lists that are each in order: a warp a row; or, of many entries, a block a row, or
// a block a group of a row's lists and then one for what the groups leave.
#include "longclock/common/launch.cuh"
#include "longclock/common/row_ranges.cuh"
#include "longclock/selection/block_selector.cuh"
#include "longclock/selection/team_selector.cuh"
#include "longclock/selection/topk_merge.h"
#include "longclock/selection/topk_parts.h"

namespace longclock {
namespace {

constexpr int64_t kPartBytes = 128 << 10;  // one multiprocessor reads them in a launch's time
constexpr int64_t kMaxMerged = 8192;       // entries of a row, by one block

// Lists of k entries of each row, `stride` apart; a block merges those of a group of them.
struct MergeLists {
  TopKEntry* entries;
  int64_t row_entries;
  unsigned lists, stride, k;
  unsigned groups, group_lists;
};

// One warp a row. Lists follow each other in order of index, and so do equals within each.
template <class T>
__global__ void __launch_bounds__(kWarpSelectorThreads)
    topk_merge_by_warp_kernel(const TopKMergeParams p) {
  using Selector = WarpSelector<kMaxWarpScores / (4 * kWarp)>;
  __shared__ Selector::Shared shared[kWarpSelectorWarps];
  const int64_t row = int64_t{blockIdx.x} * kWarpSelectorWarps + warp_index();
  if (row >= p.rows) return;
  const int k = static_cast<int>(p.k), count = static_cast<int>(p.parts) * k;
  const TopKEntry* const entries = p.entries + row * count;
  const auto ordered = [&](int i) { return i < count ? ordered_score_of(entries[i]) : 0; };
  Selector best(shared + warp_index(), k, count, [&](int i) {
    return make_uint4(ordered(4 * i), ordered(4 * i + 1), ordered(4 * i + 2), ordered(4 * i + 3));
  });
  best.take(best.bound());
  best.write_sorted(static_cast<T*>(p.top_scores) + row * k, p.indices + row * k,
                    [&](int i) { return entry_index(entries[i]); });
}

// One block a row and group of its lists. Lists follow each other in order of index, and so do
// equals within each. kFinal: the one group's best are the result; else they take the place of its
// first list.
template <class T, bool kFinal>
__global__ void __launch_bounds__(kSelectorThreads)
    topk_merge_kernel(const MergeLists p, const SelectorPlan plan, T* top_scores,
                      int64_t* indices) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x / p.groups;
  const unsigned first = blockIdx.x % p.groups * p.group_lists;
  TopKEntry* const entries = p.entries + row * p.row_entries + int64_t{first} * p.stride;
  const unsigned count = min(p.group_lists, p.lists - first) * p.k;
  const auto entry = [&](unsigned i) {
    return entries[p.stride == p.k ? i : i / p.k * p.stride + i % p.k];
  };
  BlockSelector best(&shared, memory, plan);
  for (unsigned at = 0; at < count; at += plan.capacity) {
    const int n = min(plan.capacity, static_cast<int>(count - at));
    best.begin();
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      best.push(i, i < n ? ordered_score_of(entry(at + i)) : 0);
    }
    best.end(n, [&](int i) { return entry_index(entry(at + i)); });
  }
  if constexpr (kFinal) {
    best.write_sorted(p.k, top_scores + row * p.k, indices + row * p.k);
  } else {
    best.for_each_entry(p.k, [&](int64_t i, TopKEntry value) { entries[i] = value; });
  }
}

// Rows [first, first + count), whose launch fits.
TopKMergeParams rows_of(TopKMergeParams p, int64_t first, int64_t count) {
  p.entries = from_row(p.entries, first, p.parts * p.k);
  p.rows = count;
  p.top_scores = from_row(p.top_scores, p.dtype, first, p.k);
  p.indices = from_row(p.indices, first, p.k);
  return p;
}

}  // namespace

int topk_parts(int64_t rows, int64_t longest, int64_t k, int64_t* parts) {
  constexpr int64_t kStart = 128;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  *parts = balanced_parts(rows, longest, topk_part_costs(k, kStart), device.multiprocessors);
  return cudaSuccess;
}

int team_parts(int64_t rows, int64_t longest, int64_t k, int64_t score_bytes, int64_t* parts) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t least = (longest + kMaxTeamScores - 1) / kMaxTeamScores;
  const int64_t wanted = rows < device.multiprocessors ? device.multiprocessors / rows : 1;
  if (k > kMaxWarpK || least > wanted) return topk_parts(rows, longest, k, parts);
  const int64_t of_bytes = (longest * score_bytes + kPartBytes - 1) / kPartBytes;
  *parts = of_bytes < wanted ? of_bytes : wanted;
  if (*parts < least) *parts = least;
  if (*parts < 1) *parts = 1;
  return cudaSuccess;
}

int launch_topk_merge(const TopKMergeParams& p, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  cudaError_t error = cudaSuccess;
  const auto launch = [&](auto* kernel, const MergeLists& lists, auto* top_scores) {
    const SelectorPlan plan =
        plan_selector(int64_t{lists.group_lists} * p.k, p.k, sizeof(BlockSelector::Shared), device);
    if (error == cudaSuccess) error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    error = static_cast<cudaError_t>(
        for_each_part(p.rows, lists.groups, [&](int64_t first, int64_t count) {
          const TopKMergeParams rows = rows_of(p, first, count);
          MergeLists of_rows = lists;
          of_rows.entries = rows.entries;
          kernel<<<grid_of(count * lists.groups), kSelectorThreads, plan.bytes(), stream>>>(
              of_rows, plan, static_cast<decltype(top_scores)>(rows.top_scores), rows.indices);
          return cudaGetLastError();
        }));
  };
  if (p.k <= kMaxWarpK && p.parts * p.k <= kMaxWarpScores) {
    return for_each_part(p.rows, 1, [&](int64_t first, int64_t count) {
      const unsigned blocks = grid_of((count + kWarpSelectorWarps - 1) / kWarpSelectorWarps);
      const TopKMergeParams rows = rows_of(p, first, count);
      LONGCLOCK_WITH_DTYPE(
          p.dtype, T,
          (topk_merge_by_warp_kernel<T><<<blocks, kWarpSelectorThreads, 0, stream>>>(rows)));
      return cudaGetLastError();
    });
  }
  const unsigned parts = static_cast<unsigned>(p.parts), k = static_cast<unsigned>(p.k);
  MergeLists lists{p.entries, p.parts * p.k, parts, k, k, 1, parts};
  LONGCLOCK_WITH_DTYPE(p.dtype, T, {
    T* const top_scores = static_cast<T*>(p.top_scores);
    if (p.parts * p.k > kMaxMerged) {  // as many groups as lists in each
      MergeLists grouped = lists;
      while (grouped.groups * grouped.groups < parts) ++grouped.groups;
      grouped.group_lists = (parts + grouped.groups - 1) / grouped.groups;
      grouped.groups = (parts + grouped.group_lists - 1) / grouped.group_lists;
      launch(topk_merge_kernel<T, false>, grouped, top_scores);
      lists.lists = lists.group_lists = grouped.groups;
      lists.stride = grouped.group_lists * k;
    }
    launch(topk_merge_kernel<T, true>, lists, top_scores);
  });
  return error;
}

}  // namespace longclock
