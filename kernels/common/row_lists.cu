// SPDX-License-Identifier: Apache-2.0
// Positions sorted by the row that they look up, stably: whoever adds up a row then has its
// positions side by side and in order, and needs no atomics. Nothing else uses an algorithm of
// CUB's that runs on the whole device.
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

int take_unsorted_rows(int64_t count, int64_t most_rows, Workspace* workspace,
                       UnsortedRows* unsorted) {
  UnsortedRows& p = *unsorted;
  p.count = count;
  p.bits = 1;
  while (p.bits < 32 && most_rows >> p.bits != 0) ++p.bits;
  for (uint32_t** array : {&p.rows, &p.positions, &p.sorted_rows, &p.sorted_positions}) {
    *array = workspace->take<uint32_t>(count);
  }
  const cudaError_t error = cub::DeviceRadixSort::SortPairs(
      nullptr, p.bytes, p.rows, p.sorted_rows, p.positions, p.sorted_positions, count, 0, p.bits);
  p.memory = workspace->take<char>(static_cast<int64_t>(p.bytes));
  return error;
}

int launch_sort_rows(const UnsortedRows& unsorted, RowLists* lists, CudaStream stream) {
  const UnsortedRows& p = unsorted;
  *lists = {p.sorted_rows, p.sorted_positions};
  size_t bytes = p.bytes;
  return cub::DeviceRadixSort::SortPairs(p.memory, bytes, p.rows, p.sorted_rows, p.positions,
                                         p.sorted_positions, p.count, 0, p.bits, stream);
}

int launch_row_lists(const RowLookups& p, Workspace* workspace, RowLists* lists,
                     CudaStream stream) {
  UnsortedRows unsorted;
  const int error = take_unsorted_rows(p.count, p.table_rows, workspace, &unsorted);
  if (error != 0 || workspace->memory == nullptr || p.count == 0) return error;
  table_rows_kernel<<<grid_for(p.count, kBlockThreads), kBlockThreads, 0, stream>>>(
      p, unsorted.rows, unsorted.positions);
  const cudaError_t launched = cudaGetLastError();
  return launched != cudaSuccess ? launched : launch_sort_rows(unsorted, lists, stream);
}

}  // namespace longclock
