// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../common/cuda.h"
#include "../common/simd_level.h"
#include "../gsu_score/search_topk.h"

namespace longclock {

// Tasks of multiples of this many candidates are whole panels at every SIMD level.
constexpr int64_t kCandidatePanel = 32;

// The k behaviours of best score = scale * key . query + s for every query; scores never leave the
// cache.
struct ClockGsuParams : SearchTopKParams {
  const float* queries;  // [Q, round_up(D, 16)], padded with zeros
  int64_t query_stride;  // elements, a multiple of 16
  float scale;
};

LONGCLOCK_DECLARE_BF16_LEVELS(void clock_gsu(const ClockGsuParams&, int64_t begin, int64_t end))

// Tasks [begin, end): fills `entries`, or the outputs where parts is 1.
void clock_gsu_cpu(const ClockGsuParams& params, int64_t begin, int64_t end);

// All queries, on the device of the stream. Returns a cudaError_t: 0 is success. Allocates nothing
// and waits for nothing.
int launch_clock_gsu(const DeviceSearchTopK& params, CudaStream stream);

}  // namespace longclock
