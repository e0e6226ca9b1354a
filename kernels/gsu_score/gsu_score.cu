// SPDX-License-Identifier: Apache-2.0
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "longclock/common/device.h"
#include "longclock/gsu_score/gsu_score.cuh"
#include "longclock/gsu_score/gsu_score_few.h"

namespace longclock {
namespace {

constexpr int kScanThreads = 256;

using Scan = cub::BlockScan<int64_t, kScanThreads>;
static_assert(kScoreBeginParts == kScanThreads);

// The queries of a block: those of all blocks, cut evenly.
__device__ __forceinline__ QueryRange scan_part(const DeviceSearchParams& p) {
  const int64_t size = (p.queries + gridDim.x - 1) / gridDim.x;
  const int64_t begin = min(blockIdx.x * size, p.queries);
  return {begin, min(begin + size, p.queries)};
}

__device__ __forceinline__ int64_t scores_of_query(const DeviceSearchParams& p, int64_t q) {
  return view_sequence(p, sequence_of(p, q)).length;
}

// sums [parts]: the scores of each block's queries.
__global__ void __launch_bounds__(kScanThreads)
    score_sums_kernel(const __grid_constant__ DeviceSearchParams p, int64_t* __restrict__ sums) {
  using Reduce = cub::BlockReduce<int64_t, kScanThreads>;
  __shared__ Reduce::TempStorage storage;
  const QueryRange part = scan_part(p);
  int64_t sum = 0;
  for (int64_t q = part.begin + threadIdx.x; q < part.end; q += kScanThreads) {
    sum += scores_of_query(p, q);
  }
  sum = Reduce(storage).Sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// score_begin [Q + 1]: what the blocks before have, and then 256 queries at a time.
__global__ void __launch_bounds__(kScanThreads)
    score_begin_kernel(const __grid_constant__ DeviceSearchParams p,
                       const int64_t* __restrict__ sums, int64_t* __restrict__ begin) {
  __shared__ Scan::TempStorage storage;
  int64_t offset, before;
  Scan(storage).ExclusiveSum(threadIdx.x < blockIdx.x ? sums[threadIdx.x] : 0, offset, before);
  const QueryRange part = scan_part(p);
  for (int64_t first = part.begin; first < part.end; first += kScanThreads) {
    __syncthreads();
    const int64_t q = first + threadIdx.x;
    int64_t sum;
    Scan(storage).ExclusiveSum(q < part.end ? scores_of_query(p, q) : 0, offset, sum);
    if (q < part.end) begin[q] = before + offset;
    before += sum;
  }
  if (threadIdx.x != 0 || blockIdx.x != gridDim.x - 1) return;
  begin[p.queries] = before;
  if (p.check)
    device_check(before == p.score_count, "total must be the number of scores", "gsu_score");
}

}  // namespace

int launch_score_begin(const DeviceSearchParams& p, int64_t* begin, CudaStream stream) {
  constexpr int64_t kPartQueries = 1024;  // that one block scans at least
  const int64_t parts = min(max(p.queries / kPartQueries, int64_t{1}), int64_t{kScoreBeginParts});
  int64_t* const sums = begin + p.queries + 1;
  if (parts > 1) score_sums_kernel<<<grid_of(parts), kScanThreads, 0, stream>>>(p, sums);
  score_begin_kernel<<<grid_of(parts), kScanThreads, 0, stream>>>(p, sums, begin);
  return cudaGetLastError();
}

int launch_gsu_score(const DeviceSearchParams& p, float* scores, CudaStream stream) {
  if (p.queries == 0 || p.score_count == 0) return cudaSuccess;
  Left left;
  const int error = launch_gsu_score_few(p, scores, &left, stream);
  if (error != 0 || left == Left::kNone) return error;
  const bool only_alone = left == Left::kAlone;
  const DType dtype = p.behaviours.dtype;
  if (dtype == DType::kInt8) return launch_gsu_score_int8(p, only_alone, scores, stream);
  if (dtype == DType::kFloat8) return launch_gsu_score_float8(p, only_alone, scores, stream);
  return launch_gsu_score_alone(p, only_alone, scores, stream, [&](const auto& launch) {
    LONGCLOCK_WITH_DTYPE(
        dtype, T, with_row_form(p, [&](auto form, auto features) { launch(T{}, form, features); }));
  });
}

}  // namespace longclock
