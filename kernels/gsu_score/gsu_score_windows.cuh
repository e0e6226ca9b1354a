// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/common/warp.cuh"
#include "longclock/gsu_score/gsu_score.h"

namespace longclock {

// Calls f(window) for each that holds one of the positions [begin, end_position), in the order of
// the tree. All lanes of a warp, for the same positions; f as well.
template <class F>
__device__ __forceinline__ void for_each_window(const WindowTree& tree, int64_t begin,
                                                int64_t end_position, const F& f) {
  if (begin >= end_position) return;
  const uint32_t last_start = static_cast<uint32_t>((end_position - 1) >> tree.shift);
  // Of the 32 nodes from `first` on, of `windows` each, those that may have a window to find.
  const auto search = [&](const int64_t* latest, int64_t first, int64_t windows) {
    const int64_t node = first + lane_index();
    return __ballot_sync(kAllLanes, node * windows < tree.count &&
                                        tree.sorted.rows[node * windows] <= last_start &&
                                        latest[node] > begin);
  };
  constexpr int64_t kNode = WindowTree::kNode;
  for (int64_t top = 0; top * kNode < tree.count; top += kWarp) {
    if (tree.sorted.rows[top * kNode] > last_start) break;
    for (unsigned nodes = search(tree.end_of_all, top, kNode); nodes != 0; nodes &= nodes - 1) {
      const int64_t below = (top + __ffs(nodes) - 1) * kWarp;
      for (unsigned some = search(tree.end_of_32, below, kWarp); some != 0; some &= some - 1) {
        const int64_t first = (below + __ffs(some) - 1) * kWarp;
        const uint32_t mine = tree.sorted.positions[min(first + lane_index(), tree.count - 1)];
        for (unsigned found = search(tree.end, first, 1); found != 0; found &= found - 1) {
          f(static_cast<int64_t>(__shfl_sync(kAllLanes, mine, __ffs(found) - 1)));
        }
      }
    }
  }
}

}  // namespace longclock
