// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "../machine/launch.h"
#include "device_profile.h"
#include "registry.h"

namespace longclock::emulator {

struct Launch {
  const void* function = nullptr;  // a stub's address or a cudaKernel_t
  dim3 grid, block;
  void** arguments = nullptr;
  size_t shared = 0;  // bytes, dynamic
  cudaStream_t stream = nullptr;
  bool cooperative = false;
};

// Runs the grid before it returns. Refusals are returned; a fault within the grid shows in
// cudaGetLastError and the next call that waits, while the launch itself succeeds, as on a device.
cudaError_t launch(const Launch& launch);

// What limits a block of a kernel on a device. Registers are those of a cubin; without one they
// limit nothing.
struct BlockLimits {
  uint32_t threads = 0;         // a block
  uint32_t static_shared = 0;   // bytes
  uint32_t dynamic_shared = 0;  // bytes, with what was opted in to
  uint32_t registers = 0;       // a thread; 0: unknown
};
BlockLimits limits_of(const RegisteredKernel& kernel, const KernelImage& image,
                      const DeviceProfile& profile);

// Blocks that fit a multiprocessor at once; 0: not even one.
uint32_t resident_blocks(const BlockLimits& limits, const DeviceProfile& profile, uint32_t threads,
                         uint64_t dynamic_shared);
// Of a block, in the units that registers are given out in.
uint32_t registers_of_block(uint32_t registers, uint32_t threads);

}  // namespace longclock::emulator
