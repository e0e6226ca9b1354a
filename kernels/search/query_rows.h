// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/dtype.h"

namespace longclock {

// What a row of fp32 takes where it is padded with zeros, as the kernels expect of queries.
constexpr int64_t padded_dim(int64_t dim) { return (dim + 15) / 16 * 16; }

// Queries as the kernels take them: rounded to the dtype of what they are compared with, in fp32,
// and padded. A row is of several widths side by side, each of which is padded.
struct QueryRowsParams {
  DType dtype;            // of floats
  const void* from;       // rows of all widths, unit stride
  int64_t row_stride;     // elements
  DType rounded_to;       // of floats
  const int64_t* widths;  // [width_count]
  int64_t width_count;
  float* to;          // rows of all padded widths
  int64_t to_stride;  // elements, the sum of the padded widths
};

// Rows [begin, end).
void query_rows_cpu(const QueryRowsParams& params, int64_t begin, int64_t end);

}  // namespace longclock
