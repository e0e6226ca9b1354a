// SPDX-License-Identifier: Apache-2.0
// Memory-bound: a warp makes 32 halves of words, one a lane, which follow each other in memory, and
// writes them at once. Rows of whole words lie in memory as one row: each lane loads pieces of 16
// bytes, of whose signs it makes a few bits, and what the lanes of a half have is put together in
// an exchange that halves it with each step. Other rows are read by columns, and a vote on 32 of
// them is a half.
#include "longclock/common/launch.cuh"
#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/pack_signs/pack_signs.h"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;

// x: [32 * count], aligned to 16 bytes.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    pack_pieces_kernel(const T* __restrict__ x, int64_t count, uint32_t* __restrict__ out) {
  constexpr int kPiece = kVector16<T>;
  constexpr int kHalfLanes = kWarp / kPiece;  // whose pieces are a half; and pieces of a lane
  const int lane = lane_index();
  for (int64_t first = grid_index() / kWarp * kWarp; first < count; first += grid_stride()) {
    uint4 pieces[kHalfLanes];
#pragma unroll
    for (int i = 0; i < kHalfLanes; ++i) {
      const int64_t at = first * kWarp + (i * kWarp + lane) * kPiece;
      pieces[i] = load16<T, true>(x, at, count * kWarp);
    }
    uint32_t halves[kHalfLanes];
#pragma unroll
    for (int i = 0; i < kHalfLanes; ++i) {
      float values[kPiece];
      widen16<T>(pieces[i], values);
      uint32_t bits = 0;
#pragma unroll
      for (int j = 0; j < kPiece; ++j) bits |= (values[j] > 0.0f ? 1u : 0u) << j;
      halves[i] = bits << (lane % kHalfLanes * kPiece);
    }
    // Lane l of a half's lanes ends with the half that they have of piece l.
#pragma unroll
    for (int step = kHalfLanes / 2; step > 0; step /= 2) {
      const bool upper = (lane & step) != 0;
#pragma unroll
      for (int i = 0; i < step; ++i) {
        const uint32_t given = upper ? halves[i] : halves[i + step];
        halves[i] =
            (upper ? halves[i + step] : halves[i]) | __shfl_xor_sync(kAllLanes, given, step);
      }
    }
    const int64_t mine = first + lane % kHalfLanes * kPiece + lane / kHalfLanes;
    if (mine < count) out[mine] = halves[0];
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads) pack_columns_kernel(const PackSignsParams p) {
  const int64_t halves = 2 * sign_words(p.columns), count = p.rows * halves;
  const int64_t past_row = halves * kWarp - p.columns;  // columns that no row has
  const T* x = static_cast<const T*>(p.x);
  for (int64_t first = grid_index() / kWarp * kWarp; first < count; first += grid_stride()) {
    const int64_t row = first / halves;
    int64_t column = (first - row * halves) * kWarp + lane_index();
    int64_t at = row * p.columns + column;
    const int turns = static_cast<int>(min(count - first, int64_t{kWarp}));
    uint32_t mine = 0;
#pragma unroll 4
    for (int turn = 0; turn < turns; ++turn, at += kWarp, column += kWarp) {
      if (column >= halves * kWarp) column -= halves * kWarp, at -= past_row;
      const uint32_t votes = __ballot_sync(kAllLanes, column < p.columns && widen(x[at]) > 0.0f);
      if (turn == lane_index()) mine = votes;
    }
    if (lane_index() < turns) reinterpret_cast<uint32_t*>(p.out)[first + lane_index()] = mine;
  }
}

template <class T>
void launch(const PackSignsParams& p, int64_t count, CudaStream stream) {
  const unsigned blocks = grid_for(count, kBlockThreads);
  if (p.columns % 64 == 0 && reinterpret_cast<uintptr_t>(p.x) % 16 == 0) {
    pack_pieces_kernel<T><<<blocks, kBlockThreads, 0, stream>>>(static_cast<const T*>(p.x), count,
                                                                reinterpret_cast<uint32_t*>(p.out));
  } else {
    pack_columns_kernel<T><<<blocks, kBlockThreads, 0, stream>>>(p);
  }
}

}  // namespace

int launch_pack_signs(const PackSignsParams& p, CudaStream stream) {
  const int64_t count = p.rows * 2 * sign_words(p.columns);
  if (count == 0) return cudaSuccess;
  LONGCLOCK_WITH_DTYPE(p.dtype, T, launch<T>(p, count, stream));
  return cudaGetLastError();
}

}  // namespace longclock
