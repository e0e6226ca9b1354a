// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/sequence_view.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;

__global__ void __launch_bounds__(kBlockThreads)
    window_starts_kernel(const __grid_constant__ DeviceSearchParams p, int shift,
                         const __grid_constant__ UnsortedRows windows) {
  for (int64_t s = grid_index(); s < p.sequences; s += grid_stride()) {
    windows.rows[s] = static_cast<uint32_t>(view_sequence(p, s).position >> shift);
    windows.positions[s] = static_cast<uint32_t>(s);
  }
}

// A block a node of the top level, a thread a window.
__global__ void __launch_bounds__(WindowTree::kNode)
    window_ends_kernel(const __grid_constant__ DeviceSearchParams p,
                       const __grid_constant__ WindowTree tree) {
  __shared__ int64_t latest[kWarp];
  const int64_t at = blockIdx.x * WindowTree::kNode + threadIdx.x;
  int64_t end = 0;
  if (at < tree.count) {
    const SequenceView view = view_sequence(p, tree.sorted.positions[at]);
    if (view.length > 0) end = view.position + view.length;
    tree.end[at] = end;
  }
  const auto warp_latest = [](int64_t value) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      value = max(value, __shfl_xor_sync(kAllLanes, value, offset));
    }
    return value;
  };
  end = warp_latest(end);
  if (lane_index() == 0) {
    latest[warp_index()] = end;
    if (at < tree.count) tree.end_of_32[at / kWarp] = end;
  }
  __syncthreads();
  if (warp_index() != 0) return;
  end = warp_latest(latest[lane_index()]);
  if (lane_index() == 0) tree.end_of_all[blockIdx.x] = end;
}

// Cuts the tree from memory, and where there is some builds it.
int make_tree(const DeviceSearchParams& p, Workspace* workspace, WindowTree* tree,
              CudaStream stream) {
  int shift = 0;
  while (p.positions >> shift > 0xffffffff) ++shift;
  const int64_t nodes = (p.sequences + WindowTree::kNode - 1) / WindowTree::kNode;
  tree->count = p.sequences;
  tree->shift = shift;
  tree->end = workspace->take<int64_t>(p.sequences);
  tree->end_of_32 = workspace->take<int64_t>(nodes * kWarp);
  tree->end_of_all = workspace->take<int64_t>(nodes);
  UnsortedRows unsorted;
  int error = take_unsorted_rows(p.sequences, p.positions >> shift, workspace, &unsorted);
  if (error != 0 || workspace->memory == nullptr || p.sequences == 0) return error;
  window_starts_kernel<<<grid_for(p.sequences, kBlockThreads), kBlockThreads, 0, stream>>>(
      p, shift, unsorted);
  error = cudaGetLastError();
  if (error == 0) error = launch_sort_rows(unsorted, &tree->sorted, stream);
  if (error != 0) return error;
  window_ends_kernel<<<grid_of(nodes), WindowTree::kNode, 0, stream>>>(p, *tree);
  return cudaGetLastError();
}

}  // namespace

int gsu_score_windows_bytes(const DeviceSearchParams& search, int64_t* bytes) {
  Workspace workspace{nullptr};
  WindowTree tree;
  const int error = make_tree(search, &workspace, &tree, nullptr);
  *bytes = workspace.used;
  return error;
}

int launch_gsu_score_windows(const DeviceSearchParams& search, void* memory, WindowTree* tree,
                             CudaStream stream) {
  Workspace workspace{static_cast<char*>(memory)};
  return make_tree(search, &workspace, tree, stream);
}

}  // namespace longclock
