// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace longclock::emulator {

// Limits of a compute capability. Source: CUDA C++ Programming Guide, "Compute Capabilities".
struct DeviceProfile {
  int sm;                    // 80
  uint32_t multiprocessors;  // of a typical part
  uint32_t threads_per_sm;
  uint32_t blocks_per_sm;
  uint32_t shared_per_sm;     // bytes
  uint32_t shared_per_block;  // without opt-in
  uint32_t shared_opt_in;     // cudaFuncAttributeMaxDynamicSharedMemorySize
  uint32_t shared_reserved;   // by the system, a block
  uint32_t registers_per_sm;
  uint32_t registers_per_block;
  uint32_t second_level_cache;  // bytes, of a typical part
};

// The same for all of them.
constexpr unsigned kMaxThreads = 1024;  // of a block, and of its x and y
constexpr unsigned kMaxBlockZ = 64;
constexpr unsigned kMaxMultiprocessors = 999;  // that an option may give it
constexpr unsigned kMaxGridX = 0x7fffffff;
constexpr unsigned kMaxGridYz = 65535;

// nullptr for an unknown one.
const DeviceProfile* find_profile(int sm);
DeviceProfile current_profile();  // of options().sm, with options().multiprocessors

}  // namespace longclock::emulator
