// SPDX-License-Identifier: Apache-2.0
// Warps take tiles of 32 behaviours of a query in turn. Memory-bound for one candidate: keys are
// read once; many candidates of a sequence read them from the second-level cache.
#include <cub/block/block_scan.cuh>

#include "longclock/common/device.h"
#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kScanThreads = 256;

// score_begin [Q + 1], one block: 256 queries at a time.
__global__ void __launch_bounds__(kScanThreads)
    score_begin_kernel(const __grid_constant__ DeviceSearchParams p, int64_t* __restrict__ begin) {
  using Scan = cub::BlockScan<int64_t, kScanThreads>;
  __shared__ Scan::TempStorage storage;
  int64_t before = 0;
  for (int64_t first = 0; first < p.queries; first += kScanThreads) {
    const int64_t q = first + threadIdx.x;
    int64_t length = q < p.queries ? view_sequence(p, sequence_of(p, q)).length : 0;
    int64_t offset, sum;
    Scan(storage).ExclusiveSum(length, offset, sum);
    if (q < p.queries) begin[q] = before + offset;
    before += sum;
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  begin[p.queries] = before;
  if (p.check)
    device_check(before == p.score_count, "total must be the number of scores", "gsu_score");
}

template <class T, RowForm kForm, bool kFeatures>
__global__ void __launch_bounds__(kBlockThreads,
                                  kForm == RowForm::kElements || kFeatures ? 2 : kTileBlocks)
    gsu_score_kernel(const __grid_constant__ DeviceSearchParams p, int parts,
                     float* __restrict__ scores) {
  extern __shared__ uint4 memory[];
  __shared__ SharedTimeTerm time;
  const int64_t q = blockIdx.x / static_cast<unsigned>(parts);
  const int part = static_cast<int>(blockIdx.x % static_cast<unsigned>(parts));
  __shared__ SequenceView view;
  load_view(p, [&] { return sequence_of(p, q); }, &view, &time);
  T* const query = reinterpret_cast<T*>(memory);
  if (kForm != RowForm::kElements) load_query(p, q, query);
  __syncthreads();

  const TileScorer<T, kForm, kFeatures> scorer(p, q, view, query, time);
  const int64_t begin = scores_of(p, q, view);
  const int step = parts * kBlockThreads;
  for (int64_t at = part * kBlockThreads + warp_index() * kWarpRows; at < view.length; at += step) {
    const unsigned length = view.length, tile = static_cast<unsigned>(at);
    float score;
    const bool valid = scorer.score(tile, length, &score);
    const unsigned m = scorer.behaviour(tile);
    if (m < length && begin + m < p.score_count) scores[begin + m] = valid ? score : -INFINITY;
  }
  // What lies past the last behaviour: of a dense row; of a flat result that is too long.
  const int64_t end = p.layout == SearchLayout::kDense ? begin + p.columns
                      : q == p.queries - 1             ? p.score_count
                                                       : 0;
  for (int64_t at = begin + view.length + part * kBlockThreads + threadIdx.x; at < end;
       at += step) {
    scores[at] = -INFINITY;
  }
}

}  // namespace

int launch_score_begin(const DeviceSearchParams& p, int64_t* begin, CudaStream stream) {
  score_begin_kernel<<<1, kScanThreads, 0, stream>>>(p, begin);
  return cudaGetLastError();
}

int launch_gsu_score(const DeviceSearchParams& p, float* scores, CudaStream stream) {
  if (p.queries == 0 || p.score_count == 0) return cudaSuccess;
  const int query_room = query_bytes(p);
  // Blocks of a query, for behaviours in proportion: about 1,024 each.
  const int64_t scores_a_query = p.score_count / p.queries;
  const int parts = static_cast<int>(min(scores_a_query / 1024 + 1, int64_t{1} << 20));
  const unsigned blocks = grid_of(p.queries * parts);
  const auto launch = [&](auto* kernel) {
    kernel<<<blocks, kBlockThreads, query_room, stream>>>(p, parts, scores);
  };
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, with_row_form(p, [&](auto form, auto features) {
                         launch(gsu_score_kernel<T, form, features>);
                       }));
  return cudaGetLastError();
}

}  // namespace longclock
