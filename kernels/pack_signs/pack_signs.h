// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/cuda.h"
#include "longclock/common/dtype.h"

namespace longclock {

// Words that hold `columns` bits.
LONGCLOCK_INLINE constexpr int64_t sign_words(int64_t columns) { return (columns + 63) / 64; }

// Bit i of word w of a row is x[64 w + i] > 0; the bits past the last column are 0.
struct PackSignsParams {
  DType dtype;
  const void* x;  // [rows, columns]
  int64_t rows, columns;
  uint64_t* out;  // [rows, sign_words(columns)]
};

// Rows [begin, end).
void pack_signs_cpu(const PackSignsParams& params, int64_t begin, int64_t end);

// All rows, on the device of the stream. Returns a cudaError_t: 0 is success. Allocates nothing and
// waits for nothing.
int launch_pack_signs(const PackSignsParams& params, CudaStream stream);

}  // namespace longclock
