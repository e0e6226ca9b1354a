// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/launch.cuh"
#include "longclock/common/row_parts.cuh"
#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;

// A warp for 32 columns of the run whose second part is in its slot.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    add_row_parts_kernel(const __grid_constant__ RowParts parts, int64_t panels,
                         T* __restrict__ out, int64_t first_block) {
  const int64_t task = (first_block + blockIdx.x) * kBlockWarps + warp_index();
  const int64_t slot = task / panels, column = task % panels * kWarp + lane_index();
  if (slot >= parts.slots()) return;
  const RowParts::Part second = parts.later_part(slot);
  if (second.begin < 0 || second.begin - second.run_begin != kRowPart) return;
  int64_t low = second.begin, high = parts.count - 1;  // low is of the run, its last
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (parts.lists.rows[middle] == second.row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const int64_t rest = (low - second.begin) / kRowPart + 1;  // of the run's parts
  if (column >= parts.dim) return;
  float sum = parts.first[second.run_begin / kRowPart * parts.dim + column];
  const float* const later = parts.later + slot * parts.dim + column;
#pragma unroll 16
  for (int64_t i = 0; i < rest; ++i) sum += later[i * parts.dim];
  out[second.row * parts.dim + column] = narrow<T>(sum);
}

}  // namespace

int launch_row_parts(const RowLookups& lookups, int64_t dim, Workspace* workspace, RowParts* parts,
                     CudaStream stream) {
  parts->count = lookups.count;
  parts->table_rows = static_cast<uint32_t>(lookups.table_rows);
  parts->dim = dim;
  parts->first = workspace->take<float>(parts->slots() * dim);
  parts->later = workspace->take<float>(parts->slots() * dim);
  return launch_row_lists(lookups, workspace, &parts->lists, stream);
}

int launch_add_row_parts(const RowParts& parts, DType dtype, void* out, CudaStream stream) {
  const int64_t panels = (parts.dim + kWarp - 1) / kWarp;
  const int64_t blocks = (parts.slots() * panels + kBlockWarps - 1) / kBlockWarps;
  return for_each_part(blocks, 1, [&](int64_t first, int64_t count) {
    LONGCLOCK_WITH_DTYPE(dtype, T,
                         (add_row_parts_kernel<T><<<grid_of(count), kBlockThreads, 0, stream>>>(
                             parts, panels, static_cast<T*>(out), first)));
    return cudaGetLastError();
  });
}

}  // namespace longclock
