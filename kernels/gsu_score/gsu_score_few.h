// SPDX-License-Identifier: Apache-2.0
// All scores of few candidates of one request: a block reads each key once for up to 16 of them.
// Scores have the bits that a candidate has alone.
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/device_search.h"

namespace longclock {

// Which queries a launch leaves to the kernel of one candidate: those that no other shares its rows
// with, where each has a window, or, of a search that is not for it, all.
enum class Left { kNone, kAlone, kAll };

// Returns a cudaError_t: 0 is success. Allocates nothing and waits for nothing.
int launch_gsu_score_few(const DeviceSearchParams& search, float* scores, Left* left,
                         CudaStream stream);

}  // namespace longclock
