// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace longclock {

// Bytes of the current device's second-level cache, which is asked once and kept, by any threads.
// Returns a cudaError_t: 0 is success.
int second_level_cache(int* bytes);

}  // namespace longclock
