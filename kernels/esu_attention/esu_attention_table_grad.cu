// SPDX-License-Identifier: Apache-2.0
// The gradient of a table: zeros, and over them the sum of each row that was looked up. Pairs are
// sorted by row, so a row is a run of them; whoever stands at its first pair adds it up in order,
// several loads on their way at a time. Rows that nobody looked up cost no thread.
#include "longclock/common/launch.cuh"
#include "longclock/common/row_lists.h"
#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/esu_attention/esu_attention.h"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kFlight = 8;  // pairs whose gradients are loaded at a time
constexpr uint32_t kNoPair = 0xffffffff;

// The next pairs of the list, of which `left` are left, as far as they belong to `row`.
__device__ __forceinline__ void read_pairs(const RowLists& next, uint32_t left, uint32_t row,
                                           uint32_t (&pairs)[kFlight]) {
#pragma unroll
  for (int i = 0; i < kFlight; ++i) {
    const uint32_t pair = i < left ? next.positions[i] : kNoPair;  // both loads at once
    pairs[i] = i < left && next.rows[i] == row ? pair : kNoPair;
  }
}

// 2^shift threads a pair of the list, 16 bytes of its row each. Reading by elements takes more
// registers.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kBlockThreads, kAligned ? 3 : 2)
    esu_table_grad_kernel(const __grid_constant__ EsuTableGradParams p,
                          const __grid_constant__ RowLists lists, int shift) {
  const int64_t thread = int64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
  const int64_t begin = thread >> shift;
  if (begin >= p.count) return;
  const uint32_t row = lists.rows[begin];
  if (row == p.table_rows || (begin > 0 && lists.rows[begin - 1] == row)) return;
  const int lanes = 1 << shift;
  const T* const z_grad = static_cast<const T*>(p.z_grad);
  T* const out = static_cast<T*>(p.table_grad) + row * p.dim;
  for (int64_t column = (thread & (lanes - 1)) * kVector16<T>; column < p.dim;
       column += lanes * kVector16<T>) {
    float sums[kVector16<T>] = {};
    uint32_t pairs[kFlight];
    RowLists next = {lists.rows + begin, lists.positions + begin};
    uint32_t left = static_cast<uint32_t>(p.count - begin);
    read_pairs(next, left, row, pairs);
    bool more = true;
    while (more) {
      uint4 pieces[kFlight];
#pragma unroll
      for (int i = 0; i < kFlight; ++i) {
        pieces[i] = load16<T, kAligned>(z_grad + pairs[i] * p.z_row_stride, column,
                                        pairs[i] == kNoPair ? 0 : p.dim);
      }
      more = pairs[kFlight - 1] != kNoPair;
      if (more) {
        next = {next.rows + kFlight, next.positions + kFlight};
        left -= kFlight;
        read_pairs(next, left, row, pairs);
      }
#pragma unroll
      for (const uint4& piece : pieces) {  // zeros past the run change no sum
        float values[kVector16<T>];
        widen16<T>(piece, values);
#pragma unroll
        for (int c = 0; c < kVector16<T>; ++c) sums[c] += values[c];
      }
    }
    store16<T, kAligned>(out, column, p.dim, sums);
  }
}

RowLookups lookups(const EsuTableGradParams& p) {
  return {p.ids, p.valid, p.count, p.table_rows, p.positions, p.behaviour_count};
}

}  // namespace

int esu_table_grad_bytes(const EsuTableGradParams& params, int64_t* bytes) {
  Workspace workspace{nullptr};
  RowLists lists;
  const int error = launch_row_lists(lookups(params), &workspace, &lists, nullptr);
  *bytes = workspace.used;
  return error;
}

int launch_esu_table_grad(const EsuTableGradParams& p, void* memory, CudaStream stream) {
  const int64_t row_bytes = p.dim * size_of(p.dtype);
  if (p.table_rows * row_bytes == 0) return cudaSuccess;
  if (const cudaError_t error =
          cudaMemsetAsync(p.table_grad, 0, static_cast<size_t>(p.table_rows * row_bytes), stream);
      error != cudaSuccess || p.count == 0) {
    return error;
  }
  Workspace workspace{static_cast<char*>(memory)};
  RowLists lists;
  if (const int error = launch_row_lists(lookups(p), &workspace, &lists, stream); error != 0) {
    return error;
  }
  int shift = 0;
  while (1 << shift < kWarp && 16 << shift < row_bytes) ++shift;
  const int64_t blocks = ((p.count << shift) + kBlockThreads - 1) / kBlockThreads;
  const bool aligned = aligned16(p.z_grad, p.z_row_stride, p.dim, p.dtype) &&
                       aligned16(p.table_grad, p.dim, p.dim, p.dtype);
  LONGCLOCK_WITH_DTYPE(p.dtype, T,
                       const auto kernel = aligned ? esu_table_grad_kernel<T, true>
                                                   : esu_table_grad_kernel<T, false>;
                       kernel<<<grid_of(blocks), kBlockThreads, 0, stream>>>(p, lists, shift));
  return cudaGetLastError();
}

}  // namespace longclock
