// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <utility>

#include "longclock/common/cuda.h"
#include "longclock/common/device.h"
#include "longclock/common/driver_advice.h"
#include "longclock/common/grid.h"
#include "longclock/common/second_level_cache.h"

namespace longclock {
namespace {

// What devices said, and kernels on them; which kernels have all shared memory of which device.
using KernelOnDevice = std::pair<const void*, int>;
struct Asked {
  std::shared_mutex mutex;
  std::map<int, DeviceLimits> limits;
  std::map<int, int> caches;
  std::map<KernelOnDevice, int> architectures;
  std::set<KernelOnDevice> allowed;
};
Asked& asked() {
  static Asked& made = *new Asked;  // launches may come from static destructors
  return made;
}

}  // namespace

std::string cuda_error_text(int error) {
  const std::string text = cudaGetErrorString(static_cast<cudaError_t>(error));
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  const std::string advice = driver_advice(error, driver, CUDART_VERSION);
  return advice.empty() ? text : text + "; " + advice;
}

__attribute__((weak)) int current_device(int* device) { return cudaGetDevice(device); }

int current_device_limits(DeviceLimits* limits) {
  int device = 0;
  if (const int error = current_device(&device)) return error;
  {
    const std::shared_lock lock(asked().mutex);
    if (const auto kept = asked().limits.find(device); kept != asked().limits.end()) {
      *limits = kept->second;
      return cudaSuccess;
    }
  }
  limits->device = device;
  int ordinal = 0;
  cudaError_t error = cudaGetDevice(&ordinal);
  const auto read = [&](int* value, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(value, attribute, ordinal);
  };
  read(&limits->multiprocessors, cudaDevAttrMultiProcessorCount);
  read(&limits->shared_per_multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  read(&limits->shared_optin, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  read(&limits->shared_reserved, cudaDevAttrReservedSharedMemoryPerBlock);
  if (error != cudaSuccess) return error;
  const std::unique_lock lock(asked().mutex);
  asked().limits.emplace(device, *limits);
  return cudaSuccess;
}

int second_level_cache(int* bytes) {
  int device = 0, ordinal = 0;
  if (const int error = current_device(&device)) return error;
  {
    const std::shared_lock lock(asked().mutex);
    if (const auto kept = asked().caches.find(device); kept != asked().caches.end()) {
      *bytes = kept->second;
      return cudaSuccess;
    }
  }
  cudaError_t error = cudaGetDevice(&ordinal);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(bytes, cudaDevAttrL2CacheSize, ordinal);
  if (error != cudaSuccess) return error;
  const std::unique_lock lock(asked().mutex);
  asked().caches.emplace(device, *bytes);
  return cudaSuccess;
}

int allow_all_shared(const void* kernel, const DeviceLimits& device) {
  const KernelOnDevice key(kernel, device.device);
  {
    const std::shared_lock lock(asked().mutex);
    if (asked().allowed.contains(key)) return cudaSuccess;
  }
  cudaFuncAttributes code;
  cudaError_t error = cudaFuncGetAttributes(&code, kernel);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 device.shared_optin - static_cast<int>(code.sharedSizeBytes));
  }
  if (error != cudaSuccess) return error;
  const std::unique_lock lock(asked().mutex);
  asked().allowed.insert(key);
  return cudaSuccess;
}

int code_architecture(const void* kernel, int* architecture) {
  int device = 0;
  if (const int error = current_device(&device)) return error;
  const KernelOnDevice key(kernel, device);
  {
    const std::shared_lock lock(asked().mutex);
    const auto kept = asked().architectures.find(key);
    if (kept != asked().architectures.end()) {
      *architecture = kept->second;
      return cudaSuccess;
    }
  }
  cudaFuncAttributes code;
  if (const cudaError_t error = cudaFuncGetAttributes(&code, kernel)) return error;
  *architecture = code.ptxVersion;
  const std::unique_lock lock(asked().mutex);
  asked().architectures.emplace(key, code.ptxVersion);
  return cudaSuccess;
}

__attribute__((weak)) int64_t most_blocks() { return kMaxBlocks; }

bool device_checks() {
  const char* value = std::getenv("LONGCLOCK_CHECK");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

}  // namespace longclock
