// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>

#include "longclock/common/cuda.h"
#include "longclock/common/device.h"
#include "longclock/common/driver_advice.h"
#include "longclock/common/grid.h"

namespace longclock {

std::string cuda_error_text(int error) {
  const std::string text = cudaGetErrorString(static_cast<cudaError_t>(error));
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  const std::string advice = driver_advice(error, driver, CUDART_VERSION);
  return advice.empty() ? text : text + "; " + advice;
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
