// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

namespace longclock::emulator {

bool is_stream(cudaStream_t stream);  // a default one or one that was created and not destroyed

}  // namespace longclock::emulator
