// SPDX-License-Identifier: Apache-2.0
#pragma once

struct CUstream_st;

namespace longclock {

// A cudaStream_t, so that headers with launchers need no CUDA.
using CudaStream = CUstream_st*;

// What a launcher's return value, a cudaError_t, means. 0 is success.
const char* cuda_error_text(int error);

}  // namespace longclock
