// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

namespace longclock::emulator {

// Remembers an error as the thread's last one, and returns it. The device is synchronous, as with
// CUDA_LAUNCH_BLOCKING=1, and no error is sticky: a test goes on after a fault.
cudaError_t fail(cudaError_t error);
// A host-side reason that a code alone does not tell, to stderr.
cudaError_t fail(cudaError_t error, const char* reason);

}  // namespace longclock::emulator
