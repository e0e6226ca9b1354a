// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace longclock {

// What helps where the NVIDIA driver is the reason of a cudaError_t; "" where it is not.
// `driver` and `toolkit`: the CUDA release that the driver runs and the one that compiled the
// kernels, as CUDA writes them, 13000 for 13.0; a driver of 0 is none.
std::string driver_advice(int error, int driver, int toolkit);

}  // namespace longclock
