// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "cuda.h"

namespace longclock {

const char* cuda_error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // namespace longclock
