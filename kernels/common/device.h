// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace longclock {

// What launchers choose grids and shared memory by, asked of the current device at run time.
struct DeviceLimits {
  int multiprocessors;
  int shared_per_multiprocessor;  // bytes
  int shared_optin;               // of a block that asks for more than 48 KB
  int shared_reserved;            // of every block, by the system
};

// Returns a cudaError_t: 0 is success.
int current_device_limits(DeviceLimits* limits);

// Whether LONGCLOCK_CHECK=1 is set: kernels then assert what they would clamp.
bool device_checks();

}  // namespace longclock
