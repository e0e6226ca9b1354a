// SPDX-License-Identifier: Apache-2.0
// Launches, refused where a device of the chosen profile would refuse them, and with its error.
// Limits: CUDA C++ Programming Guide, "Compute Capabilities".
#include <cuda_runtime_api.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "../emulator.h"
#include "capture.h"
#include "device_profile.h"
#include "errors.h"
#include "registry.h"

namespace longclock::emulator {
namespace {

constexpr uint64_t kWarp = 32;
constexpr uint64_t kRegisterUnit = 256;  // registers are given to a warp in units of so many

struct Pushed {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<Pushed> pushed;  // <<< >>>, between its push and its pop

uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

uint64_t registers_of_block(uint64_t registers, uint64_t threads) {
  return round_up(round_up(registers, 8) * kWarp, kRegisterUnit) * ((threads + kWarp - 1) / kWarp);
}

// What a kernel asked for on the current device; 0: nothing.
uint32_t opt_in_shared(const LoadedKernel& loaded) {
  const auto asked = loaded.kernel->opt_in_shared.find(current_profile().sm);
  return asked == loaded.kernel->opt_in_shared.end() ? 0 : asked->second;
}

// How many blocks of a kernel one multiprocessor holds.
uint64_t resident_blocks(const LoadedKernel& loaded, uint64_t threads, uint64_t dynamic_shared) {
  const DeviceProfile& p = current_profile();
  const uint64_t warps = (threads + kWarp - 1) / kWarp;
  if (threads == 0 || threads > kMaxThreads) return 0;
  uint64_t blocks = std::min<uint64_t>(p.blocks_per_sm, p.threads_per_sm / kWarp / warps);
  const uint64_t shared =
      round_up(kernel_facts(*loaded.program).static_shared + dynamic_shared, 128);
  if (shared + p.shared_reserved > 0)
    blocks = std::min(blocks, p.shared_per_sm / std::max<uint64_t>(1, shared + p.shared_reserved));
  if (loaded.registers != 0)
    blocks = std::min(blocks, p.registers_per_sm / registers_of_block(loaded.registers, threads));
  return blocks;
}

LoadedKernel load(const void* stub, cudaError_t& error) {
  LoadedKernel loaded;
  error = cudaSuccess;
  try {
    loaded = registry().load(stub);
    if (loaded.program == nullptr) {
      error = fail(loaded.kernel == nullptr ? cudaErrorInvalidDeviceFunction
                                            : cudaErrorNoKernelImageForDevice);
    }
  } catch (const std::exception& problem) {
    error = fail(cudaErrorInvalidPtx, problem.what());
  }
  return loaded;
}

// What __launch_bounds__ allows; 0: it says nothing.
uint64_t bound_threads(const ptx::Function& function) {
  const uint32_t* most = function.max_threads;
  return uint64_t{most[0]} * std::max(most[1], 1u) * std::max(most[2], 1u);
}

cudaError_t check_limits(const LoadedKernel& loaded, dim3 grid, dim3 block, size_t shared,
                         bool cooperative) {
  const DeviceProfile& p = current_profile();
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || block.x > kMaxThreads || block.y > kMaxThreads || block.z > kMaxBlockZ ||
      threads > kMaxThreads) {
    return cudaErrorInvalidConfiguration;
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > options().blocks ||
      grid.y > kMaxGridYz || grid.z > kMaxGridYz) {
    return cudaErrorInvalidConfiguration;
  }
  const uint32_t* required = loaded.function->required_threads;
  if (required[0] != 0 &&
      (required[0] != block.x || required[1] != block.y || required[2] != block.z)) {
    return cudaErrorInvalidConfiguration;
  }
  const uint64_t bound = bound_threads(*loaded.function);
  if (bound != 0 && threads > bound) {
    return cudaErrorLaunchOutOfResources;
  }
  const uint64_t all_shared = kernel_facts(*loaded.program).static_shared + shared;
  const uint64_t limit = std::max<uint64_t>(
      p.shared_per_block, kernel_facts(*loaded.program).static_shared + opt_in_shared(loaded));
  if (all_shared > std::min<uint64_t>(limit, p.shared_opt_in)) return cudaErrorInvalidValue;
  if (loaded.registers != 0 &&
      registers_of_block(loaded.registers, threads) > p.registers_per_block) {
    return cudaErrorLaunchOutOfResources;
  }
  if (cooperative && uint64_t{grid.x} * grid.y * grid.z >
                         resident_blocks(loaded, threads, shared) * p.multiprocessors) {
    return cudaErrorCooperativeLaunchTooLarge;
  }
  return cudaSuccess;
}

cudaError_t launch(const void* stub, dim3 grid, dim3 block, void** arguments, size_t shared,
                   bool cooperative, cudaStream_t stream) {
  if (const cudaError_t refused = check_captured("cudaLaunchKernel", stream)) return refused;
  static std::mutex& one_at_a_time = *new std::mutex;
  cudaError_t error;
  const LoadedKernel loaded = load(stub, error);
  if (error != cudaSuccess) return error;
  error = check_limits(loaded, grid, block, shared, cooperative);
  if (error != cudaSuccess) return fail(error);
  LaunchConfig config;
  config.grid[0] = grid.x, config.grid[1] = grid.y, config.grid[2] = grid.z;
  config.block[0] = block.x, config.block[1] = block.y, config.block[2] = block.z;
  config.dynamic_shared = static_cast<uint32_t>(shared);
  config.cooperative = cooperative;
  config.arguments = arguments;
  const std::lock_guard lock(one_at_a_time);
  // The fault of a kernel is no fault of its launch: it shows in the last error.
  fail(static_cast<cudaError_t>(run_kernel(*loaded.program, config)));
  return cudaSuccess;
}

}  // namespace
}  // namespace longclock::emulator

using namespace longclock::emulator;

extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                     struct CUstream_st* stream) {
  pushed.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (pushed.empty()) return fail(cudaErrorMissingConfiguration);
  *grid = pushed.back().grid;
  *block = pushed.back().block;
  *shared = pushed.back().shared;
  *static_cast<cudaStream_t*>(stream) = pushed.back().stream;
  pushed.pop_back();
  return cudaSuccess;
}

// A kernel's handle is its stub.
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}

cudaError_t cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  return __cudaGetKernel(kernel, stub);
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, shared, false, stream);
}

cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                                    size_t shared, cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, shared, false, stream);
}

cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t stream) {
  return launch(stub, grid, block, arguments, shared, false, stream);
}

cudaError_t cudaLaunchCooperativeKernel(const void* stub, dim3 grid, dim3 block, void** arguments,
                                        size_t shared, cudaStream_t stream) {
  return launch(stub, grid, block, arguments, shared, true, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub,
                                void** arguments) {
  bool cooperative = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id == cudaLaunchAttributeCooperative)
      cooperative = attribute.val.cooperative != 0;
    if (attribute.id == cudaLaunchAttributeClusterDimension) {
      const auto& size = attribute.val.clusterDim;
      if (uint64_t{size.x} * size.y * size.z > 1) {
        return fail(cudaErrorNotSupported, "clusters of more than one block are not emulated");
      }
    }
  }
  return launch(stub, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes,
                cooperative, config->stream);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void* stub) {
  cudaError_t error;
  const LoadedKernel loaded = load(stub, error);
  if (error != cudaSuccess) return error;
  const DeviceProfile& p = current_profile();
  const KernelFacts& facts = kernel_facts(*loaded.program);
  *out = {};
  out->sharedSizeBytes = facts.static_shared;
  out->localSizeBytes = facts.local_bytes;
  out->numRegs = static_cast<int>(loaded.registers);
  out->ptxVersion = loaded.ptx_arch;
  out->binaryVersion = p.sm;
  uint64_t most = kMaxThreads;
  if (const uint64_t bound = bound_threads(*loaded.function); bound != 0)
    most = std::min(most, bound);
  if (loaded.registers != 0) {
    while (most > kWarp && registers_of_block(loaded.registers, most) > p.registers_per_block)
      most -= kWarp;
  }
  out->maxThreadsPerBlock = static_cast<int>(most);
  const uint32_t asked_for = opt_in_shared(loaded);
  out->maxDynamicSharedSizeBytes =
      static_cast<int>(asked_for != 0 ? asked_for : p.shared_per_block - facts.static_shared);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute attribute, int value) {
  cudaError_t error;
  const LoadedKernel loaded = load(stub, error);
  if (error != cudaSuccess) return error;
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || kernel_facts(*loaded.program).static_shared + static_cast<uint64_t>(value) >
                         current_profile().shared_opt_in) {
      return fail(cudaErrorInvalidValue);
    }
    loaded.kernel->opt_in_shared[current_profile().sm] = static_cast<uint32_t>(value);
  }
  return cudaSuccess;  // others are hints
}

cudaError_t cudaFuncSetCacheConfig(const void*, cudaFuncCache) { return cudaSuccess; }

cudaError_t cudaFuncGetName(const char** name, const void* stub) {
  cudaError_t error;
  const LoadedKernel loaded = load(stub, error);
  if (error == cudaSuccess) *name = loaded.kernel->name.c_str();
  return error;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* stub,
                                                                   int threads, size_t shared,
                                                                   unsigned) {
  cudaError_t error;
  const LoadedKernel loaded = load(stub, error);
  if (error != cudaSuccess) return error;
  if (threads <= 0) return fail(cudaErrorInvalidValue);
  *blocks = static_cast<int>(resident_blocks(loaded, static_cast<uint64_t>(threads), shared));
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* stub,
                                                          int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, stub, threads, shared, 0);
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, const void* stub, int blocks,
                                                      int) {
  cudaError_t error;
  const LoadedKernel loaded = load(stub, error);
  if (error != cudaSuccess) return error;
  if (blocks <= 0) return fail(cudaErrorInvalidValue);
  const DeviceProfile& p = current_profile();
  const uint64_t each = p.shared_per_sm / static_cast<uint64_t>(blocks);
  const uint64_t used = kernel_facts(*loaded.program).static_shared + p.shared_reserved;
  *bytes = std::min<uint64_t>(each > used ? each - used : 0, p.shared_opt_in);
  return cudaSuccess;
}

}  // extern "C"
