// SPDX-License-Identifier: Apache-2.0
// The gradient of a table: zeros, and over them the sum of each row that was looked up. Pairs are
// sorted by row, so a row is a run of them; whoever stands at the first pair of a part of a run
// (common/row_parts.cuh) adds that up in order, several loads on their way at a time. Rows that
// nobody looked up cost no thread.
#include "longclock/common/launch.cuh"
#include "longclock/common/row_parts.cuh"
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

// The pairs of `row` from `begin` on, a part of them at most: of 16 bytes of columns, to sums.
template <class T, bool kAligned>
__device__ __forceinline__ void add_pairs(const EsuTableGradParams& p, const RowParts& parts,
                                          int64_t begin, uint32_t row, int64_t column,
                                          float (&sums)[kVector16<T>]) {
  const T* const z_grad = static_cast<const T*>(p.z_grad);
  uint32_t pairs[kFlight];
  RowLists next = {parts.lists.rows + begin, parts.lists.positions + begin};
  uint32_t left = static_cast<uint32_t>(min(p.count - begin, kRowPart));
  read_pairs(next, left, row, pairs);
  bool more = true;
  while (more) {
    uint4 loaded[kFlight];
#pragma unroll
    for (int i = 0; i < kFlight; ++i) {
      loaded[i] = load16<T, kAligned>(z_grad + pairs[i] * p.z_row_stride, column,
                                      pairs[i] == kNoPair ? 0 : p.dim);
    }
    more = pairs[kFlight - 1] != kNoPair && left > kFlight;
    if (more) {
      next = {next.rows + kFlight, next.positions + kFlight};
      left -= kFlight;
      read_pairs(next, left, row, pairs);
    }
#pragma unroll
    for (const uint4& piece : loaded) {  // zeros past the run change no sum
      float values[kVector16<T>];
      widen16<T>(piece, values);
#pragma unroll
      for (int c = 0; c < kVector16<T>; ++c) sums[c] += values[c];
    }
  }
}

// 2^shift threads a slot of parts, and then a pair of the list, 16 bytes of its row each. Reading
// by elements takes more registers.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kBlockThreads, kAligned ? 3 : 2)
    esu_table_grad_kernel(const __grid_constant__ EsuTableGradParams p,
                          const __grid_constant__ RowParts parts, int shift) {
  const int64_t thread = int64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
  const int64_t slot = thread >> shift, slots = parts.slots();
  int64_t begin = slot - slots;
  uint32_t row;
  float* partial = nullptr;  // [dim], where the run has several parts
  if (begin < 0) {
    const RowParts::Part part = parts.later_part(slot);
    if (part.begin < 0) return;
    begin = part.begin;
    row = part.row;
    partial = parts.later + slot * p.dim;
  } else {
    if (begin >= p.count) return;
    row = parts.lists.rows[begin];
    if (row == p.table_rows || (begin > 0 && parts.lists.rows[begin - 1] == row)) return;
    if (parts.goes_on(begin, row)) partial = parts.first + begin / kRowPart * p.dim;
  }
  const int lanes = 1 << shift;
  for (int64_t column = (thread & (lanes - 1)) * kVector16<T>; column < p.dim;
       column += lanes * kVector16<T>) {
    float sums[kVector16<T>] = {};
    add_pairs<T, kAligned>(p, parts, begin, row, column, sums);
    if (partial == nullptr) {
      store16<T, kAligned>(static_cast<T*>(p.table_grad) + row * p.dim, column, p.dim, sums);
      continue;
    }
#pragma unroll
    for (int c = 0; c < kVector16<T>; c += 4) {
      store16<float, kAligned>(partial, column + c, p.dim,
                               {sums[c], sums[c + 1], sums[c + 2], sums[c + 3]});
    }
  }
}

RowLookups lookups(const EsuTableGradParams& p) {
  return {p.ids, p.valid, p.count, p.table_rows, p.positions, p.behaviour_count};
}

}  // namespace

int esu_table_grad_bytes(const EsuTableGradParams& p, int64_t* bytes) {
  Workspace workspace{nullptr};
  RowParts parts;
  const int error = launch_row_parts(lookups(p), p.dim, &workspace, &parts, nullptr);
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
  RowParts parts;
  if (const int error = launch_row_parts(lookups(p), p.dim, &workspace, &parts, stream);
      error != 0) {
    return error;
  }
  int shift = 0;
  while (1 << shift < kWarp && 16 << shift < row_bytes) ++shift;
  const int64_t threads = (parts.slots() + p.count) << shift;
  const int64_t blocks = (threads + kBlockThreads - 1) / kBlockThreads;
  const bool aligned = aligned16(p.z_grad, p.z_row_stride, p.dim, p.dtype) &&
                       aligned16(p.table_grad, p.dim, p.dim, p.dtype);
  LONGCLOCK_WITH_DTYPE(p.dtype, T,
                       const auto kernel = aligned ? esu_table_grad_kernel<T, true>
                                                   : esu_table_grad_kernel<T, false>;
                       kernel<<<grid_of(blocks), kBlockThreads, 0, stream>>>(p, parts, shift));
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  return launch_add_row_parts(parts, p.dtype, p.table_grad, stream);
}

}  // namespace longclock
