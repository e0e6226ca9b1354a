// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

struct CUstream_st;

namespace longclock {

// A cudaStream_t, so that headers with launchers need no CUDA.
using CudaStream = CUstream_st*;

// What a launcher's return value, a cudaError_t, means, and what helps where the driver is the
// reason. 0 is success.
std::string cuda_error_text(int error);

}  // namespace longclock
