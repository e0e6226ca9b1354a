// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/cuda.h"
#include "longclock/common/dtype.h"
#include "longclock/selection/selection.h"

namespace longclock {

// The k best of each row by (score descending, index ascending). A row may be cut into parts, each
// selected on its own and merged: the result is the same for any number of parts.
struct BlockTopKParams {
  DType dtype;
  const void* scores;  // [rows, columns], unit stride on columns
  int64_t rows, columns;
  int64_t row_stride;  // elements
  IntArray lengths;    // [rows], 0..columns, or none
  int64_t k;           // 0..2048
  int64_t parts;       // >= 1
  TopKEntry* entries;  // [rows, parts, k], 0 where a part has fewer; none with one part
  void* top_scores;    // [rows, k], the input's dtype
  int64_t* indices;    // [rows, k]
  bool check;          // CUDA: assert that lengths fit, in place of clamping them
};

// Tasks [begin, end) of rows * parts: fills `entries`, or the outputs where parts is 1.
void block_topk_cpu(const BlockTopKParams& params, int64_t begin, int64_t end);
// Rows [begin, end): merges the parts into the outputs.
void block_topk_merge_cpu(const BlockTopKParams& params, int64_t begin, int64_t end);

struct BlockTopKBackwardParams {
  DType dtype;
  const void* grad;        // [rows, k]
  const int64_t* indices;  // [rows, k], -1 for padding
  int64_t rows, k, columns;
  void* out;  // [rows, columns]
};
// Rows [begin, end).
void block_topk_backward_cpu(const BlockTopKBackwardParams& params, int64_t begin, int64_t end);

// All rows, on the device of the stream. Each returns a cudaError_t: 0 is success. The launchers
// allocate nothing and wait for nothing.
int launch_block_topk(const BlockTopKParams& params, CudaStream stream);
int launch_block_topk_backward(const BlockTopKBackwardParams& params, CudaStream stream);

}  // namespace longclock
