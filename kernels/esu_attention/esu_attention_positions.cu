// SPDX-License-Identifier: Apache-2.0
// Where the behaviours that a search found lie among those of all histories: what the attention
// gathers times, ids and rows by. One block a query: a few integers each, so that it takes no
// longer than its launch.
#include "longclock/common/launch.cuh"
#include "longclock/esu_attention/esu_attention.h"
#include "longclock/search/sequence_view.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 128;

__global__ void __launch_bounds__(kBlockThreads)
    esu_positions_kernel(const __grid_constant__ DeviceEsuPositionsParams p, int64_t first_query) {
  __shared__ SequenceView shared_view;
  const int64_t q = first_query + blockIdx.x;
  if (threadIdx.x == 0) {
    shared_view = view_sequence(p.search, sequence_of(p.search, q));
    p.query_time[q] = shared_view.query_time;
  }
  __syncthreads();
  const SequenceView view = shared_view;
  for (int64_t k = threadIdx.x; k < p.k; k += kBlockThreads) {
    const int64_t index = p.found[q * p.k + k];
    const bool inside = index >= 0 && index < view.length;
    if (p.search.check) {
      device_check(inside || index == -1,
                   "found must hold indices of each query's own history, or -1", "esu_attention");
    }
    const bool valid = inside && is_valid(p.search, view, static_cast<unsigned>(index));
    p.positions[q * p.k + k] = valid ? view.position + index : -1;
  }
}

}  // namespace

int launch_esu_positions(const DeviceEsuPositionsParams& p, CudaStream stream) {
  return for_each_part(p.search.queries, 1, [&](int64_t first, int64_t count) {
    esu_positions_kernel<<<grid_of(count), kBlockThreads, 0, stream>>>(p, first);
    return cudaGetLastError();
  });
}

}  // namespace longclock
