// SPDX-License-Identifier: Apache-2.0
// One device, of the profile that the options name.
#include <cuda_runtime_api.h>

#include <cstdio>

#include "../emulator.h"
#include "../memory/memory_map.h"
#include "capture.h"
#include "device_profile.h"
#include "errors.h"

using namespace longclock::emulator;

namespace {

constexpr int kVersion = CUDART_VERSION;
thread_local size_t limits[cudaLimitPersistingL2CacheSize + 1] = {1024, 1 << 20, 8 << 20};

// There is no driver.
cudaError_t no_entry_point(void** function, cudaDriverEntryPointQueryResult* status) {
  *function = nullptr;
  if (status != nullptr) *status = cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : fail(cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t error = refuse_while_capturing("cudaDeviceSynchronize")) return error;
  return cudaPeekAtLastError();
}
cudaError_t cudaDeviceReset() {
  if (const cudaError_t error = refuse_while_capturing("cudaDeviceReset")) return error;
  return cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
cudaError_t cudaGetDeviceFlags(unsigned* flags) {
  *flags = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache) { return cudaSuccess; }
cudaError_t cudaDeviceGetCacheConfig(cudaFuncCache* config) {
  *config = cudaFuncCachePreferNone;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit limit) {
  if (static_cast<unsigned>(limit) >= std::size(limits)) return fail(cudaErrorUnsupportedLimit);
  *value = limits[limit];
  return cudaSuccess;
}
cudaError_t cudaDeviceSetLimit(cudaLimit limit, size_t value) {
  if (const cudaError_t error = refuse_while_capturing("cudaDeviceSetLimit")) return error;
  if (static_cast<unsigned>(limit) >= std::size(limits)) return fail(cudaErrorUnsupportedLimit);
  limits[limit] = value;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return fail(cudaErrorInvalidDevice);
  const DeviceProfile& p = current_profile();
  const auto give = [&](uint64_t v) {
    *value = static_cast<int>(v);
    return cudaSuccess;
  };
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return give(kMaxThreads);
    case cudaDevAttrMaxBlockDimZ:
      return give(kMaxBlockZ);
    case cudaDevAttrMaxGridDimX:
      return give(static_cast<uint64_t>(options().blocks));
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return give(kMaxGridYz);
    case cudaDevAttrWarpSize:
      return give(32);
    case cudaDevAttrMultiProcessorCount:
      return give(p.multiprocessors);
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return give(p.threads_per_sm);
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return give(p.blocks_per_sm);
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return give(p.shared_per_block);
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return give(p.shared_opt_in);
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return give(p.shared_per_sm);
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return give(p.shared_reserved);
    case cudaDevAttrMaxRegistersPerBlock:
      return give(p.registers_per_block);
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return give(p.registers_per_sm);
    case cudaDevAttrComputeCapabilityMajor:
      return give(static_cast<uint64_t>(p.sm / 10));
    case cudaDevAttrComputeCapabilityMinor:
      return give(static_cast<uint64_t>(p.sm % 10));
    case cudaDevAttrTotalConstantMemory:
      return give(65536);
    case cudaDevAttrL2CacheSize:
      return give(p.second_level_cache);
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
      return give(1000000);
    case cudaDevAttrGlobalMemoryBusWidth:
      return give(4096);
    case cudaDevAttrTextureAlignment:
      return give(512);
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrCanMapHostMemory:
      return give(1);
    default:
      return give(0);
  }
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int device) {
  if (device != 0) return fail(cudaErrorInvalidDevice);
  const DeviceProfile& p = current_profile();
  *out = {};
  std::snprintf(out->name, sizeof(out->name), "longclock emulator, sm_%d", p.sm);
  size_t free_bytes = 0, total = 0;
  cudaMemGetInfo(&free_bytes, &total);
  out->totalGlobalMem = total;
  out->sharedMemPerBlock = p.shared_per_block;
  out->sharedMemPerBlockOptin = p.shared_opt_in;
  out->sharedMemPerMultiprocessor = p.shared_per_sm;
  out->reservedSharedMemPerBlock = p.shared_reserved;
  out->regsPerBlock = static_cast<int>(p.registers_per_block);
  out->regsPerMultiprocessor = static_cast<int>(p.registers_per_sm);
  out->warpSize = 32;
  out->maxThreadsPerBlock = out->maxThreadsDim[0] = out->maxThreadsDim[1] = kMaxThreads;
  out->maxThreadsDim[2] = kMaxBlockZ;
  out->maxGridSize[0] = kMaxGridX;
  out->maxGridSize[1] = out->maxGridSize[2] = kMaxGridYz;
  out->maxThreadsPerMultiProcessor = static_cast<int>(p.threads_per_sm);
  out->maxBlocksPerMultiProcessor = static_cast<int>(p.blocks_per_sm);
  out->multiProcessorCount = static_cast<int>(p.multiprocessors);
  out->major = p.sm / 10;
  out->minor = p.sm % 10;
  out->totalConstMem = 65536;
  out->l2CacheSize = static_cast<int>(p.second_level_cache);
  out->textureAlignment = 512;
  out->memPitch = 0x7fffffff;
  out->unifiedAddressing = out->managedMemory = out->concurrentManagedAccess = 1;
  out->cooperativeLaunch = out->concurrentKernels = out->canMapHostMemory = 1;
  out->memoryPoolsSupported = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPoint(const char*, void** function, unsigned long long,
                                    cudaDriverEntryPointQueryResult* status) {
  return no_entry_point(function, status);
}
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  return no_entry_point(function, status);
}
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

}  // extern "C"
