// SPDX-License-Identifier: Apache-2.0
#include "device_profile.h"

#include "../emulator.h"

namespace longclock::emulator {
namespace {

constexpr uint32_t kKB = 1024, kMB = 1024 * kKB;

// CUDA C++ Programming Guide, "Compute Capabilities", table "Technical Specifications per Compute
// Capability"; multiprocessors and second-level caches from the data sheets of T4, A100, RTX 3090,
// L40, H100 PCIe, B200 and RTX PRO 6000.
constexpr DeviceProfile kProfiles[] = {
    // sm, multiprocessors, per SM: threads, blocks, shared; per block: shared, opt-in, reserved;
    // registers per SM and block; second-level cache
    {75, 40, 1024, 16, 64 * kKB, 48 * kKB, 64 * kKB, 0, 65536, 65536, 4 * kMB},
    {80, 108, 2048, 32, 164 * kKB, 48 * kKB, 163 * kKB, kKB, 65536, 65536, 40 * kMB},
    {86, 82, 1536, 16, 100 * kKB, 48 * kKB, 99 * kKB, kKB, 65536, 65536, 6 * kMB},
    {89, 142, 1536, 24, 100 * kKB, 48 * kKB, 99 * kKB, kKB, 65536, 65536, 96 * kMB},
    {90, 114, 2048, 32, 228 * kKB, 48 * kKB, 227 * kKB, kKB, 65536, 65536, 50 * kMB},
    {100, 148, 2048, 32, 228 * kKB, 48 * kKB, 227 * kKB, kKB, 65536, 65536, 126 * kMB},
    {120, 188, 1536, 24, 100 * kKB, 48 * kKB, 99 * kKB, kKB, 65536, 65536, 128 * kMB},
};
constexpr const DeviceProfile& kDefault = kProfiles[1];

}  // namespace

const DeviceProfile* find_profile(int sm) {
  for (const DeviceProfile& profile : kProfiles) {
    if (profile.sm == sm) return &profile;
  }
  return nullptr;
}

DeviceProfile current_profile() {
  const DeviceProfile* const found = find_profile(options().sm);
  DeviceProfile profile = found == nullptr ? kDefault : *found;
  if (options().multiprocessors != 0) profile.multiprocessors = options().multiprocessors;
  return profile;
}

}  // namespace longclock::emulator
