// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/cuda.h"
#include "longclock/common/dtype.h"

namespace longclock {

constexpr int kCircularDeltaMaxDims = 8;

// out = min(x, period - x) with x = |a mod period - b mod period|.
struct CircularDeltaParams {
  IntArray a, b;                         // seconds, any epoch and sign; broadcast by strides of 0
  int dims;                              // of the broadcast shape, 1..8
  int64_t sizes[kCircularDeltaMaxDims];  // outermost first
  int64_t a_strides[kCircularDeltaMaxDims];  // elements
  int64_t b_strides[kCircularDeltaMaxDims];
  int64_t period;  // 1..2^31 - 1
  void* out;       // contiguous, int64 where a or b is, else int32
};

// Elements [begin, end) of the output.
void circular_delta_cpu(const CircularDeltaParams& params, int64_t begin, int64_t end);

// All elements, on the device of the stream. Returns a cudaError_t: 0 is success.
int launch_circular_delta(const CircularDeltaParams& params, CudaStream stream);

}  // namespace longclock
