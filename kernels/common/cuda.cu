// SPDX-License-Identifier: Apache-2.0
#include "cuda.h"

#include <cuda_runtime.h>

namespace longclock {

const char* cuda_error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // namespace longclock
