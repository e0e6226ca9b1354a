// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include "../emulator.h"
#include "launcher.h"
#include "registry.h"
#include "status.h"

namespace emulator = longclock::emulator;

extern "C" {

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  if (attributes == nullptr) return emulator::fail(cudaErrorInvalidValue);
  const emulator::RegisteredKernel* kernel = emulator::registry().find_kernel(function);
  if (kernel == nullptr) return emulator::fail(cudaErrorInvalidDeviceFunction);
  const emulator::KernelImage* image = nullptr;
  const cudaError_t error = emulator::registry().load(*kernel, &image);
  if (error != cudaSuccess) return emulator::fail(error);
  const emulator::DeviceProfile& profile = emulator::current_profile();
  const emulator::BlockLimits limits = emulator::limits_of(*kernel, *image, profile);
  *attributes = {};
  attributes->sharedSizeBytes = limits.static_shared;
  attributes->localSizeBytes = emulator::kernel_facts(*image->program).local_bytes;
  attributes->maxThreadsPerBlock = static_cast<int>(limits.threads);
  attributes->numRegs = static_cast<int>(limits.registers);
  attributes->ptxVersion = image->module->target;
  attributes->binaryVersion = profile.sm;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(limits.dynamic_shared);
  attributes->preferredShmemCarveout = kernel->carveout;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  emulator::RegisteredKernel* kernel = emulator::registry().find_kernel(function);
  if (kernel == nullptr) return emulator::fail(cudaErrorInvalidDeviceFunction);
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize: {
      const emulator::KernelImage* image = nullptr;
      const cudaError_t error = emulator::registry().load(*kernel, &image);
      if (error != cudaSuccess) return emulator::fail(error);
      const uint64_t shared = emulator::kernel_facts(*image->program).static_shared;
      const uint64_t most = emulator::current_profile().shared_opt_in;
      if (value < 0 || shared + static_cast<uint64_t>(value) > most) {
        return emulator::fail(cudaErrorInvalidValue);
      }
      kernel->max_dynamic_shared = value;
      return cudaSuccess;
    }
    case cudaFuncAttributePreferredSharedMemoryCarveout:
      if (value < -1 || value > 100) return emulator::fail(cudaErrorInvalidValue);
      kernel->carveout = value;
      return cudaSuccess;
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
    case cudaFuncAttributeClusterSchedulingPolicyPreference:
      return cudaSuccess;  // of clusters, which no launch has
    default:
      return emulator::fail(cudaErrorInvalidValue);
  }
}

cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel, cudaFuncAttribute attribute,
                                            int value, int device) {
  if (device != 0) return emulator::fail(cudaErrorInvalidDevice);
  return cudaFuncSetAttribute(kernel, attribute, value);
}

cudaError_t cudaFuncSetCacheConfig(const void* function, cudaFuncCache) {
  const bool known = emulator::registry().find_kernel(function) != nullptr;
  return emulator::fail(known ? cudaSuccess : cudaErrorInvalidDeviceFunction);
}

cudaError_t cudaFuncSetSharedMemConfig(const void* function, cudaSharedMemConfig) {
  return cudaFuncSetCacheConfig(function, cudaFuncCachePreferNone);
}

cudaError_t cudaFuncGetName(const char** name, const void* function) {
  if (name == nullptr) return emulator::fail(cudaErrorInvalidValue);
  const emulator::RegisteredKernel* kernel = emulator::registry().find_kernel(function);
  if (kernel == nullptr) return emulator::fail(cudaErrorInvalidDeviceFunction);
  *name = kernel->name.c_str();
  return cudaSuccess;
}

cudaError_t cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  if (kernel == nullptr) return emulator::fail(cudaErrorInvalidValue);
  *kernel = reinterpret_cast<cudaKernel_t>(emulator::registry().find_kernel(function));
  return emulator::fail(*kernel == nullptr ? cudaErrorInvalidDeviceFunction : cudaSuccess);
}

// Both handles are one: what launches take.
cudaError_t cudaGetFuncBySymbol(cudaFunction_t* handle, const void* function) {
  if (handle == nullptr) return emulator::fail(cudaErrorInvalidValue);
  *handle = reinterpret_cast<cudaFunction_t>(emulator::registry().find_kernel(function));
  return emulator::fail(*handle == nullptr ? cudaErrorInvalidDeviceFunction : cudaSuccess);
}

}  // extern "C"
