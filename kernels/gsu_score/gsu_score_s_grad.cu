// SPDX-License-Identifier: Apache-2.0
// The gradient of s, from which that of the time term's parameters is made. Memory-bound: each
// gradient of a score is read once. Each output has one owner, which adds in a fixed order; there
// are no atomics, and neither the other sequences of a batch nor the grid shows in a bit.
#include "longclock/common/device.h"
#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/sequence_view.cuh"
#include "longclock/time/clock.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kQuerySums = 8;  // sums of a behaviour's gradient

// The gradient of s for every behaviour of a sequence or window, summed over its queries, with its
// delta. Query i belongs to sum i % kQuerySums; the sums are added in order, whether one thread of
// a behaviour has them all or each has a thread. What is not valid gets 0.
template <int kThreads>
__global__ void __launch_bounds__(kBlockThreads, 3)
    s_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int parts) {
  constexpr int kBehaviours = kBlockThreads / kThreads, kSums = kQuerySums / kThreads;
  constexpr int kLoads = kThreads == 1 ? kQuerySums : 16;  // in flight
  __shared__ float sums[kThreads][kBehaviours];
  const DeviceSearchParams& p = params.search;
  const int64_t s = blockIdx.x / parts;
  const int part = static_cast<int>(blockIdx.x % parts);
  const SequenceView view = view_sequence(p, s);
  const QueryRange queries = owned_queries(p, s);
  const bool dense = p.layout == SearchLayout::kDense;
  const bool windows = p.layout == SearchLayout::kWindows;
  if (windows && queries.begin == queries.end) return;  // no place of its own among the scores
  const int64_t begin = !windows              ? view.position
                        : params.s_of_windows ? s * p.positions
                                              : p.score_begin[queries.begin];
  const int64_t row =
      dense ? p.columns : int64_t{view.length};  // from a query's scores to the next's
  const int64_t room = min(row, params.s_count - begin);
  const int64_t scores = scores_of(p, queries.begin, view);
  const int64_t fitting = row > 0 ? max((p.score_count - scores) / row, int64_t{0}) : 0;  // queries
  // Unsigned: a step past the last of 2^31 - 1 queries is more than an int holds.
  const unsigned count = static_cast<unsigned>(min(queries.end - queries.begin, fitting));
  const int thread = threadIdx.x / kBehaviours, behaviour = threadIdx.x % kBehaviours;
  for (int64_t tile = int64_t{part} * kBehaviours; tile < room; tile += parts * kBehaviours) {
    const int64_t m = tile + behaviour;
    const bool valid = m < room && m < view.length && is_valid(p, view, static_cast<unsigned>(m));
    const float* grad = params.grad + scores + m;
    float acc[kSums] = {};
    for (unsigned q = thread; valid && q < count; q += kLoads * kThreads) {
      float values[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const unsigned query = q + i * kThreads;
        values[i] = query < count ? __ldg(grad + query * row) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) acc[i % kSums] += values[i];
    }
    float sum = acc[0];
    if constexpr (kThreads > 1) {
      sums[thread][behaviour] = sum;
      __syncthreads();
      if (thread == 0) {
        for (int i = 1; i < kThreads; ++i) sum += sums[i][behaviour];
      }
      __syncthreads();
    } else {
#pragma unroll
      for (int i = 1; i < kSums; ++i) sum += acc[i];
    }
    if (thread != 0 || m >= room) continue;
    params.s_grad[begin + m] = sum;
    // Features of a time may be infinite, and no query's 0 of inf is NaN.
    const bool asked = valid && count > 0;
    const int64_t time = asked ? time_of(p, view, static_cast<unsigned>(m)) : 0;
#pragma unroll 1
    for (int c = 0; c < p.behaviours.time.clocks; ++c) {
      const Clock& clock = p.clocks[c].clock;
      const int32_t delta =
          clock.period == kElapsed
              ? elapsed_delta(time, view.query_time)
              : clock_delta(clock, clock_time(clock, time), clock_time(clock, view.query_time));
      params.s_delta[c * params.s_count + begin + m] = asked ? delta : 0;
    }
  }
}

}  // namespace

int launch_gsu_score_s_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  const DeviceSearchParams& p = params.search;
  if (p.sequences == 0 || params.s_count == 0) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t threads = int64_t{device.multiprocessors} * 2048;  // that a GPU has at once
  const bool share = params.s_count < threads && p.queries >= kQuerySums * p.sequences;
  const int64_t behaviours = share ? kBlockThreads / kQuerySums : kBlockThreads;
  const int64_t most = params.s_count / p.sequences / behaviours + 1;  // of an average sequence
  const int64_t wanted = 16 * device.multiprocessors / p.sequences + 1;
  const int parts = static_cast<int>(min(most, wanted));
  const unsigned blocks = grid_of(p.sequences * parts);
  (share ? s_grad_kernel<kQuerySums> : s_grad_kernel<1>)<<<blocks, kBlockThreads, 0, stream>>>(
      params, parts);
  return cudaGetLastError();
}

}  // namespace longclock
