// SPDX-License-Identifier: Apache-2.0
// What nvcc's host code calls: registration, from static constructors in any order, and <<<>>>.
#include <cuda_runtime_api.h>

#include <vector>

#include "launcher.h"
#include "registry.h"
#include "status.h"

namespace longclock::emulator {
namespace {

struct CallConfiguration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};

// Calls nest where an argument of a launch launches.
std::vector<CallConfiguration>& call_configurations() {
  static thread_local std::vector<CallConfiguration> configurations;
  return configurations;
}

Fatbin* fatbin_of(void** handle) { return reinterpret_cast<Fatbin*>(handle); }

}  // namespace
}  // namespace longclock::emulator

namespace emulator = longclock::emulator;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(emulator::registry().add_fatbin(wrapper));
}

void __cudaRegisterFatBinaryEnd(void**) {}

void __cudaUnregisterFatBinary(void** handle) {
  emulator::registry().remove_fatbin(emulator::fatbin_of(handle));
}

void __cudaRegisterFunction(void** handle, const char* host_function, char*, const char* name, int,
                            uint3*, uint3*, dim3*, dim3*, int*) {
  emulator::registry().add_kernel(emulator::fatbin_of(handle), host_function, name);
}

void __cudaRegisterVar(void** handle, char* host_variable, char*, const char* name, int,
                       size_t bytes, int, int) {
  emulator::registry().add_variable(emulator::fatbin_of(handle), host_variable, name, bytes);
}

void __cudaRegisterManagedVar(void** handle, void** host_pointer, char*, const char* name, int,
                              size_t bytes, int, int) {
  emulator::registry().add_managed(emulator::fatbin_of(handle), host_pointer, name, bytes);
}

// Textures are not emulated: a kernel that reads one is refused when it is decoded.
void __cudaRegisterTexture(void**, const struct textureReference*, const void**, const char*, int,
                           int, int) {}
void __cudaRegisterSurface(void**, const struct surfaceReference*, const void**, const char*, int,
                           int) {}

// Before the host first uses a managed variable.
char __cudaInitModule(void** handle) {
  emulator::fail(emulator::registry().load_managed(*emulator::fatbin_of(handle)));
  return 1;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                     struct CUstream_st* stream) {
  emulator::call_configurations().push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  auto& configurations = emulator::call_configurations();
  if (configurations.empty()) return emulator::fail(cudaErrorMissingConfiguration);
  const emulator::CallConfiguration top = configurations.back();
  configurations.pop_back();
  *grid = top.grid;
  *block = top.block;
  *shared = top.shared;
  *static_cast<cudaStream_t*>(stream) = top.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  auto* found = emulator::registry().find_kernel(function);
  *kernel = reinterpret_cast<cudaKernel_t>(found);
  return emulator::fail(found == nullptr ? cudaErrorInvalidDeviceFunction : cudaSuccess);
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
  return emulator::launch({.function = kernel,
                           .grid = grid,
                           .block = block,
                           .arguments = arguments,
                           .shared = shared,
                           .stream = stream});
}
LONGCLOCK_PER_THREAD(__cudaLaunchKernel, _ptsz);

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t stream) {
  return emulator::launch({.function = function,
                           .grid = grid,
                           .block = block,
                           .arguments = arguments,
                           .shared = shared,
                           .stream = stream});
}
LONGCLOCK_PER_THREAD(cudaLaunchKernel, _ptsz);

cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block,
                                        void** arguments, size_t shared, cudaStream_t stream) {
  return emulator::launch({.function = function,
                           .grid = grid,
                           .block = block,
                           .arguments = arguments,
                           .shared = shared,
                           .stream = stream,
                           .cooperative = true});
}
LONGCLOCK_PER_THREAD(cudaLaunchCooperativeKernel, _ptsz);

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                void** arguments) {
  if (config == nullptr) return emulator::fail(cudaErrorInvalidValue);
  emulator::Launch launch{.function = function,
                          .grid = config->gridDim,
                          .block = config->blockDim,
                          .arguments = arguments,
                          .shared = config->dynamicSmemBytes,
                          .stream = config->stream};
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id == cudaLaunchAttributeCooperative) {
      launch.cooperative = attribute.val.cooperative != 0;
    } else if (attribute.id == cudaLaunchAttributeClusterDimension) {
      const auto& cluster = attribute.val.clusterDim;
      if (cluster.x == 0 || cluster.y == 0 || cluster.z == 0) {
        return emulator::fail(cudaErrorInvalidClusterSize);
      }
      // Clusters are not emulated; neither are they known before sm_90.
      if (cluster.x * cluster.y * cluster.z != 1) return emulator::fail(cudaErrorNotSupported);
    }
    // Others are about order and caches: a grid ends before the next one begins.
  }
  return emulator::launch(launch);
}
LONGCLOCK_PER_THREAD(cudaLaunchKernelExC, _ptsz);

}  // extern "C"
