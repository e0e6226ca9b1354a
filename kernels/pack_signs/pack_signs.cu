// SPDX-License-Identifier: Apache-2.0
// A warp's vote on 32 columns is half a word; it takes 32 of these, which follow each other, a lane
// keeps each, and all are written at once. Memory-bound.
#include "../common/launch.cuh"
#include "../common/vector16.cuh"
#include "../common/warp.cuh"
#include "pack_signs.h"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;

template <class T>
__global__ void __launch_bounds__(kBlockThreads) pack_signs_kernel(const PackSignsParams p) {
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

}  // namespace

int launch_pack_signs(const PackSignsParams& p, CudaStream stream) {
  const int64_t count = p.rows * 2 * sign_words(p.columns);
  if (count == 0) return cudaSuccess;
  LONGCLOCK_WITH_DTYPE(
      p.dtype, T,
      (pack_signs_kernel<T><<<grid_for(count, kBlockThreads), kBlockThreads, 0, stream>>>(p)));
  return cudaGetLastError();
}

}  // namespace longclock
