// SPDX-License-Identifier: Apache-2.0
// Launches, and what a device refuses to launch.
#include "launcher.h"

#include <algorithm>

#include "../emulator.h"
#include "status.h"
#include "streams.h"

namespace longclock::emulator {
namespace {

constexpr uint32_t kMostThreads = 1024, kMostThreadsZ = 64;
constexpr uint32_t kMostBlocksX = 0x7fffffff, kMostBlocksYZ = 65535;

bool fits_device(const dim3& grid, const dim3& block) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return false;
  if (block.x == 0 || block.y == 0 || block.z == 0) return false;
  if (grid.x > kMostBlocksX || grid.y > kMostBlocksYZ || grid.z > kMostBlocksYZ) return false;
  if (block.x > kMostThreads || block.y > kMostThreads || block.z > kMostThreadsZ) return false;
  return uint64_t{block.x} * block.y * block.z <= kMostThreads;
}

// .reqntid is of all three extents; its missing ones are 1.
bool fits_required(const ptx::Function& function, const dim3& block) {
  const uint32_t* required = function.required_threads;
  if (required[0] == 0) return true;
  return block.x == required[0] && block.y == std::max(1u, required[1]) &&
         block.z == std::max(1u, required[2]);
}

// 0: no bound.
uint32_t launch_bound(const ptx::Function& function) {
  const uint32_t* most = function.max_threads;
  return most[0] * std::max(1u, most[1]) * std::max(1u, most[2]);
}

cudaError_t check(const Launch& launch, const RegisteredKernel& kernel, const KernelImage& image) {
  const DeviceProfile& profile = current_profile();
  const BlockLimits limits = limits_of(kernel, image, profile);
  const uint32_t threads = launch.block.x * launch.block.y * launch.block.z;
  if (!fits_required(*image.function, launch.block)) return cudaErrorInvalidConfiguration;
  const uint32_t bound = launch_bound(*image.function);
  if (bound != 0 && threads > bound) return cudaErrorInvalidValue;
  if (launch.shared > limits.dynamic_shared) return cudaErrorInvalidValue;
  if (registers_of_block(limits.registers, threads) > profile.registers_per_block) {
    return cudaErrorLaunchOutOfResources;
  }
  if (launch.arguments == nullptr && kernel_facts(*image.program).parameter_count != 0) {
    return cudaErrorInvalidValue;
  }
  if (launch.cooperative) {
    const uint64_t blocks = uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
    const uint64_t resident = uint64_t{resident_blocks(limits, profile, threads, launch.shared)} *
                              profile.multiprocessors;
    if (blocks > resident) return cudaErrorCooperativeLaunchTooLarge;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t launch(const Launch& launch) {
  const RegisteredKernel* kernel = registry().find_kernel(launch.function);
  if (kernel == nullptr) return fail(cudaErrorInvalidDeviceFunction);
  if (!is_stream(launch.stream)) return fail(cudaErrorInvalidResourceHandle);
  if (!fits_device(launch.grid, launch.block)) return fail(cudaErrorInvalidConfiguration);
  const KernelImage* image = nullptr;
  if (const cudaError_t error = registry().load(*kernel, &image); error != cudaSuccess) {
    return fail(error);
  }
  if (const cudaError_t error = check(launch, *kernel, *image); error != cudaSuccess) {
    return fail(error);
  }
  const LaunchConfig config{.grid = {launch.grid.x, launch.grid.y, launch.grid.z},
                            .block = {launch.block.x, launch.block.y, launch.block.z},
                            .dynamic_shared = static_cast<uint32_t>(launch.shared),
                            .cooperative = launch.cooperative,
                            .arguments = launch.arguments};
  const std::lock_guard lock(device_mutex());
  set_device_error(static_cast<cudaError_t>(run_kernel(*image->program, config)));
  return cudaSuccess;
}

}  // namespace longclock::emulator
