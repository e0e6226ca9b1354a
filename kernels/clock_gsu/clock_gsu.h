// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/dot_search.h"

namespace longclock {

// Tasks [begin, end): fills `entries`, or the outputs where parts is 1.
void clock_gsu_cpu(const DotSearchParams& params, int64_t begin, int64_t end);

// All queries, on the device of the stream. Returns a cudaError_t: 0 is success. Allocates nothing
// and waits for nothing.
int launch_clock_gsu(const DeviceSearchTopKParams& params, CudaStream stream);
// Those of rows of int8, and of float8, which are compiled on their own.
int launch_clock_gsu_int8(const DeviceSearchTopKParams& params, CudaStream stream);
int launch_clock_gsu_float8(const DeviceSearchTopKParams& params, CudaStream stream);

}  // namespace longclock
