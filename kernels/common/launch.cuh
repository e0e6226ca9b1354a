// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "longclock/common/cuda.h"
#include "longclock/common/device.h"
#include "longclock/common/dtype.h"
#include "longclock/common/grid.h"

namespace longclock {

// Blocks for `count` items, `per_block` a block. Kernels stride over the grid, so that the cap,
// several waves of the largest GPU, only bounds the number of blocks.
inline unsigned grid_for(int64_t count, int64_t per_block) {
  constexpr int64_t kEnough = 1 << 16;
  const int64_t most = most_blocks() < kEnough ? most_blocks() : kEnough;
  const int64_t blocks = (count + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

// The grid of a launch that needs as many blocks; a launch of too many fails.
inline unsigned grid_of(int64_t blocks) { return grid_of(blocks, most_blocks()); }

// Portions of `items` that fit a launch; f returns a cudaError_t. See grid.h.
template <class F>
int for_each_part(int64_t items, int64_t item_blocks, const F& f) {
  return for_each_part(items, items, item_blocks, most_blocks(), f);
}

// This thread's first item and the step to its next, in 64 bits.
__device__ __forceinline__ int64_t grid_index() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t grid_stride() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

// Calls f(typed pointer) for int32 or int64 data.
template <class F>
void with_ints(const IntArray& ints, F&& f) {
  if (ints.is_64) {
    f(static_cast<const int64_t*>(ints.data));
  } else {
    f(static_cast<const int32_t*>(ints.data));
  }
}

// See device.h.
template <class Kernel>
cudaError_t allow_all_shared(Kernel* kernel, const DeviceLimits& device) {
  const void* const code = reinterpret_cast<const void*>(kernel);
  return static_cast<cudaError_t>(allow_all_shared(code, device));
}

// Whether a kernel's code on the current device has kHasAsyncCopy. Returns a cudaError_t.
template <class Kernel>
int has_async_copy(Kernel* kernel, bool* has) {
  int architecture = 0;
  const int error = code_architecture(reinterpret_cast<const void*>(kernel), &architecture);
  *has = error == cudaSuccess && architecture >= 80;
  return error;
}

}  // namespace longclock
