// SPDX-License-Identifier: Apache-2.0
// Memory-bound: warps take tiles of 32 behaviours in turn and score them for all candidates of the
// block. Scores pass through shared memory, a piece of it each warp's own, so that each candidate's
// are written as one line.
#pragma once

#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score_few.h"
#include "longclock/search/few_tiles.cuh"

namespace longclock {

constexpr int kFewScoreStride = kWarpRows + kScoresApart;
constexpr int kFewScoreBytes = kFewThreads / kWarp * kFewScoreStride * 4;  // of a candidate

// -inf past the last behaviour: of dense rows; of a flat result that is too long.
__device__ __forceinline__ void fill_past(const DeviceSearchParams& p, const FewShared& shared,
                                          int64_t q, int64_t begin, unsigned first, unsigned step,
                                          float* scores) {
  const int64_t end = p.layout == SearchLayout::kDense ? begin + p.columns
                      : q == p.queries - 1             ? p.score_count
                                                       : 0;
  for (int64_t at = begin + shared.view.length + first; at < end; at += step) {
    scores[at] = -INFINITY;
  }
}

template <class T, RowForm kForm>
__global__ void __launch_bounds__(kFewThreads, 2)
    gsu_score_few_kernel(const __grid_constant__ DeviceSearchParams p,
                         const __grid_constant__ FewTiles tiles, float* __restrict__ scores) {
  extern __shared__ uint4 memory[];  // queries, and scores of each warp
  __shared__ FewShared shared;
  __shared__ int64_t begins[kTileQueries];  // of each candidate's scores
  char* const queries = reinterpret_cast<char*>(memory);
  if (!begin_few<T>(p, tiles, &shared, queries)) return;
  const int64_t query = shared.candidates.query;
  const int count = shared.candidates.count;
  if (static_cast<int>(threadIdx.x) < count) {
    begins[threadIdx.x] = scores_of(p, query + threadIdx.x, shared.view);
  }
  __syncthreads();
  float* const own = reinterpret_cast<float*>(queries + tiles.most * tiles.row_bytes) +
                     warp_index() * tiles.most * kFewScoreStride;
  const unsigned length = static_cast<unsigned>(shared.view.length);
  const unsigned first = few_part(tiles) * kFewThreads;
  const unsigned step = static_cast<unsigned>(tiles.parts) * kFewThreads;
  const FewScorer<T, kForm> scorer(p, shared.view, shared.time, queries, tiles.row_bytes, count);
  for (int64_t at = first + warp_index() * kWarpRows; at < length; at += step) {
    const unsigned tile = static_cast<unsigned>(at), m = tile + lane_index();
    scorer.score(tile, length, [&](int candidate, int row, float score, bool valid) {
      own[candidate * kFewScoreStride + row] = valid ? score : -INFINITY;
    });
    __syncwarp();
    for (int i = 0; i < count; ++i) {
      const int64_t place = begins[i] + m;
      if (m < length && place < p.score_count)
        scores[place] = own[i * kFewScoreStride + lane_index()];
    }
    __syncwarp();
  }
  for (int i = 0; i < count; ++i) {
    fill_past(p, shared, query + i, begins[i], first + threadIdx.x, step, scores);
  }
}

// All tiles, of the element and the std::integral_constant<RowForm, ...> that with(f) calls f with.
template <class With>
int launch_gsu_score_tiles(const DeviceSearchParams& search, const FewTiles& tiles, float* scores,
                           CudaStream stream, const With& with) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int bytes = tiles.most * (tiles.row_bytes + kFewScoreBytes);
  const unsigned blocks = grid_of(tiles.count * tiles.parts);
  cudaError_t error = cudaSuccess;
  with([&](auto element, auto form) {
    auto* const kernel = gsu_score_few_kernel<decltype(element), form>;
    error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    kernel<<<blocks, kFewThreads, bytes, stream>>>(search, tiles, scores);
    error = cudaGetLastError();
  });
  return error;
}

}  // namespace longclock
