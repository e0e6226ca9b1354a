// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>

#include "longclock/common/cuda.h"
#include "longclock/common/device.h"
#include "longclock/common/grid.h"

namespace longclock {

const char* cuda_error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

int current_device_limits(DeviceLimits* limits) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  const auto read = [&](int* value, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(value, attribute, device);
  };
  read(&limits->multiprocessors, cudaDevAttrMultiProcessorCount);
  read(&limits->shared_per_multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  read(&limits->shared_optin, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  read(&limits->shared_reserved, cudaDevAttrReservedSharedMemoryPerBlock);
  return error;
}

__attribute__((weak)) int64_t most_blocks() { return kMaxBlocks; }

bool device_checks() {
  const char* value = std::getenv("LONGCLOCK_CHECK");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

}  // namespace longclock
