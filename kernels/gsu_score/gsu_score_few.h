// SPDX-License-Identifier: Apache-2.0
// All scores of few candidates of one request: a block reads each key once for up to 16 of them.
// Scores have the bits that a candidate has alone.
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/few_tiles.h"

namespace longclock {

// Which queries a launch leaves to the kernel of one candidate: those that no other shares its rows
// with, where each has a window, or, of a search that is not for it, all.
enum class Left { kNone, kAlone, kAll };

// Returns a cudaError_t: 0 is success. Allocates nothing and waits for nothing.
int launch_gsu_score_few(const DeviceSearchParams& search, float* scores, Left* left,
                         CudaStream stream);

// Of rows of int8, and of float8, which are compiled on their own: the tiles, and queries one by
// one.
int launch_gsu_score_few_int8(const DeviceSearchParams& search, const FewTiles& tiles,
                              float* scores, CudaStream stream);
int launch_gsu_score_few_float8(const DeviceSearchParams& search, const FewTiles& tiles,
                                float* scores, CudaStream stream);
int launch_gsu_score_int8(const DeviceSearchParams& search, bool only_alone, float* scores,
                          CudaStream stream);
int launch_gsu_score_float8(const DeviceSearchParams& search, bool only_alone, float* scores,
                            CudaStream stream);

}  // namespace longclock
