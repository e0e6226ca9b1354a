// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace longclock {

// What launchers choose grids and shared memory by: of the current device, at run time.
struct DeviceLimits {
  int device;  // its number
  int multiprocessors;
  int shared_per_multiprocessor;  // bytes
  int shared_optin;               // of a block that asks for more than 48 KB
  int shared_reserved;            // of every block, by the system
};

// Each returns a cudaError_t: 0 is success. What a device says is asked once and kept, by any
// threads.
int current_device_limits(DeviceLimits* limits);
// Lets a kernel have all the dynamic shared memory that its static leaves. Always the same value:
// it belongs to the kernel, and threads of the host may be launching it for other sizes.
int allow_all_shared(const void* kernel, const DeviceLimits& device);
// The architecture that a kernel's code on the current device was compiled for: 80.
int code_architecture(const void* kernel, int* architecture);
// The number of the current device; on the emulator each profile is one.
int current_device(int* device);

// Whether LONGCLOCK_CHECK=1 is set: kernels then assert what they would clamp.
bool device_checks();

}  // namespace longclock
