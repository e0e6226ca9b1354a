// SPDX-License-Identifier: Apache-2.0
// Positions sorted by the row that they look up, stably: whoever adds up a row then has its
// positions side by side and in order, and needs no atomics. Nothing else uses CUB.
#include <cub/device/device_radix_sort.cuh>

#include "longclock/common/launch.cuh"
#include "longclock/common/row_lists.h"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;

// What is to be sorted.
__global__ void __launch_bounds__(kBlockThreads)
    table_rows_kernel(const __grid_constant__ RowLookups p, uint32_t* __restrict__ rows,
                      uint32_t* __restrict__ positions) {
  for (int64_t at = grid_index(); at < p.count; at += grid_stride()) {
    const int64_t from = p.ids_at == nullptr ? at : p.ids_at[at];
    const bool looks = (p.mask == nullptr || p.mask[at] != 0) &&
                       (p.ids_at == nullptr || (from >= 0 && from < p.ids_count));
    int64_t id = looks ? p.ids[from] : p.table_rows;
    if (id < 0 || id > p.table_rows) id = p.table_rows;
    rows[at] = static_cast<uint32_t>(id);
    positions[at] = static_cast<uint32_t>(at);
  }
}

}  // namespace

int launch_row_lists(const RowLookups& p, Workspace* workspace, RowLists* lists,
                     CudaStream stream) {
  uint32_t* const rows = workspace->take<uint32_t>(p.count);
  uint32_t* const positions = workspace->take<uint32_t>(p.count);
  uint32_t* const sorted_rows = workspace->take<uint32_t>(p.count);
  uint32_t* const sorted_positions = workspace->take<uint32_t>(p.count);
  *lists = {sorted_rows, sorted_positions};
  int bits = 1;
  while (bits < 32 && p.table_rows >> bits != 0) ++bits;
  size_t sort_bytes = 0;
  const auto sort = [&](void* memory) {
    return cub::DeviceRadixSort::SortPairs(memory, sort_bytes, rows, sorted_rows, positions,
                                           sorted_positions, p.count, 0, bits, stream);
  };
  const cudaError_t error = sort(nullptr);
  char* const sort_memory = workspace->take<char>(static_cast<int64_t>(sort_bytes));
  if (error != cudaSuccess || workspace->memory == nullptr || p.count == 0) return error;
  table_rows_kernel<<<grid_for(p.count, kBlockThreads), kBlockThreads, 0, stream>>>(p, rows,
                                                                                    positions);
  const cudaError_t launched = cudaGetLastError();
  return launched != cudaSuccess ? launched : sort(sort_memory);
}

}  // namespace longclock
