// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/search_topk.h"

namespace longclock {

// The k behaviours whose hashes differ from the query's in the fewest bits: score = -(bits that
// differ), among equals the earliest. Behaviours are rows of words of 64 bits, without a time term.
struct HammingGsuParams : SearchTopKParams {
  const uint64_t* queries;  // [Q, dim]
};

// Tasks [begin, end): fills `entries`, or the outputs where parts is 1.
void hamming_gsu_cpu(const HammingGsuParams& params, int64_t begin, int64_t end);

// All queries, on the device of the stream. Returns a cudaError_t: 0 is success. Allocates nothing
// and waits for nothing.
int launch_hamming_gsu(const DeviceSearchTopKParams& params, CudaStream stream);

}  // namespace longclock
