// SPDX-License-Identifier: Apache-2.0
// How many blocks of a kernel a multiprocessor holds. Source: CUDA occupancy calculator
// (cuda_occupancy.h): registers are given to warps in units of 256, to warps in fours; shared memory
// to blocks in units of 128 bytes (256 before sm_80) on top of what the system reserves.
#include <algorithm>

#include "../emulator.h"
#include "launcher.h"
#include "status.h"

namespace longclock::emulator {
namespace {

constexpr uint32_t kWarp = 32, kWarpUnit = 4, kRegisterUnit = 256, kMostThreads = 1024;

template <class T>
T round_up(T value, T unit) {
  return (value + unit - 1) / unit * unit;
}

uint32_t registers_of_warp(uint32_t registers) {
  return round_up(registers * kWarp, kRegisterUnit);
}

uint64_t shared_of_block(const DeviceProfile& profile, uint64_t bytes) {
  return round_up<uint64_t>(bytes + profile.shared_reserved, profile.sm < 80 ? 256 : 128);
}

struct Loaded {
  const DeviceProfile* profile = nullptr;
  BlockLimits limits;
};

cudaError_t load(const void* function, Loaded* out) {
  const RegisteredKernel* kernel = registry().find_kernel(function);
  if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
  const KernelImage* image = nullptr;
  const cudaError_t error = registry().load(*kernel, &image);
  if (error != cudaSuccess) return error;
  out->profile = &current_profile();
  out->limits = limits_of(*kernel, *image, *out->profile);
  return cudaSuccess;
}

}  // namespace

uint32_t registers_of_block(uint32_t registers, uint32_t threads) {
  const uint32_t warps = (threads + kWarp - 1) / kWarp;
  return registers_of_warp(registers) * round_up(warps, kWarpUnit);
}

BlockLimits limits_of(const RegisteredKernel& kernel, const KernelImage& image,
                      const DeviceProfile& profile) {
  BlockLimits out;
  const KernelFacts& facts = kernel_facts(*image.program);
  out.static_shared = static_cast<uint32_t>(facts.static_shared);
  const uint32_t most = kernel.max_dynamic_shared < 0 ? profile.shared_per_block
                                                      : profile.shared_opt_in;
  const uint32_t left = most > out.static_shared ? most - out.static_shared : 0;
  const uint32_t without = profile.shared_per_block > out.static_shared
                               ? profile.shared_per_block - out.static_shared
                               : 0;
  out.dynamic_shared = kernel.max_dynamic_shared < 0
                           ? left
                           : std::min(left, static_cast<uint32_t>(kernel.max_dynamic_shared));
  // Opting in to less than the default takes nothing away.
  out.dynamic_shared = std::max(out.dynamic_shared, without);
  out.registers = registers_of(image, profile.sm);

  out.threads = kMostThreads;
  const uint32_t* bound = image.function->max_threads;
  const uint32_t* required = image.function->required_threads;
  for (const uint32_t* extents : {bound, required}) {
    if (extents[0] == 0) continue;
    out.threads = std::min(
        out.threads, extents[0] * std::max(1u, extents[1]) * std::max(1u, extents[2]));
  }
  if (out.registers != 0) {
    const uint32_t warps = profile.registers_per_block / registers_of_warp(out.registers);
    out.threads = std::min(out.threads, warps / kWarpUnit * kWarpUnit * kWarp);
  }
  return out;
}

uint32_t resident_blocks(const BlockLimits& limits, const DeviceProfile& profile, uint32_t threads,
                         uint64_t dynamic_shared) {
  if (threads == 0 || threads > limits.threads) return 0;
  if (dynamic_shared > limits.dynamic_shared) return 0;
  const uint32_t warps = (threads + kWarp - 1) / kWarp;
  uint64_t blocks = std::min(profile.blocks_per_sm, profile.threads_per_sm / (warps * kWarp));
  if (limits.registers != 0) {
    const uint32_t fit = profile.registers_per_sm / registers_of_warp(limits.registers);
    blocks = std::min<uint64_t>(blocks, fit / kWarpUnit * kWarpUnit / warps);
  }
  const uint64_t shared = shared_of_block(profile, limits.static_shared + dynamic_shared);
  if (shared != 0) blocks = std::min<uint64_t>(blocks, profile.shared_per_sm / shared);
  return static_cast<uint32_t>(blocks);
}

}  // namespace longclock::emulator

namespace emulator = longclock::emulator;

extern "C" {

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                   const void* function,
                                                                   int threads, size_t shared,
                                                                   unsigned) {
  if (blocks == nullptr || threads <= 0) return emulator::fail(cudaErrorInvalidValue);
  emulator::Loaded loaded;
  if (const cudaError_t error = emulator::load(function, &loaded); error != cudaSuccess) {
    return emulator::fail(error);
  }
  *blocks = static_cast<int>(emulator::resident_blocks(loaded.limits, *loaded.profile,
                                                       static_cast<uint32_t>(threads), shared));
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared,
                                                                0);
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, const void* function,
                                                      int blocks, int threads) {
  if (bytes == nullptr || blocks <= 0 || threads <= 0) return emulator::fail(cudaErrorInvalidValue);
  emulator::Loaded loaded;
  if (const cudaError_t error = emulator::load(function, &loaded); error != cudaSuccess) {
    return emulator::fail(error);
  }
  const emulator::DeviceProfile& profile = *loaded.profile;
  const uint64_t unit = profile.sm < 80 ? 256 : 128;
  const uint64_t each = profile.shared_per_sm / static_cast<uint64_t>(blocks) / unit * unit;
  const uint64_t taken = loaded.limits.static_shared + profile.shared_reserved;
  const uint64_t most = profile.shared_opt_in - std::min<uint64_t>(profile.shared_opt_in, loaded.limits.static_shared);
  *bytes = std::min(each > taken ? each - taken : 0, most);
  return cudaSuccess;
}

// Clusters of one block are all there is.
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void* function,
                                           const cudaLaunchConfig_t* config) {
  if (clusters == nullptr || config == nullptr) return emulator::fail(cudaErrorInvalidValue);
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id != cudaLaunchAttributeClusterDimension) continue;
    const auto& cluster = config->attrs[i].val.clusterDim;
    if (cluster.x * cluster.y * cluster.z != 1) return emulator::fail(cudaErrorNotSupported);
  }
  const dim3& block = config->blockDim;
  const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      clusters, function, static_cast<int>(block.x * block.y * block.z), config->dynamicSmemBytes);
  if (error != cudaSuccess) return error;
  *clusters *= static_cast<int>(emulator::current_profile().multiprocessors);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxPotentialClusterSize(int* size, const void* function,
                                                 const cudaLaunchConfig_t* config) {
  if (size == nullptr || config == nullptr) return emulator::fail(cudaErrorInvalidValue);
  if (emulator::registry().find_kernel(function) == nullptr) {
    return emulator::fail(cudaErrorInvalidDeviceFunction);
  }
  *size = 1;
  return cudaSuccess;
}

}  // extern "C"
