// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/common/dtype.h"
#include "longclock/selection/selection.h"

namespace longclock {

// The best k of a row's parts.
struct TopKMergeParams {
  DType dtype;         // of top_scores
  TopKEntry* entries;  // [rows, parts, k], equals of a part in order of index, 0 for padding; is
                       // overwritten
  int64_t rows, parts, k;
  void* top_scores;  // [rows, k], sorted
  int64_t* indices;  // [rows, k]
};

// All rows, on the device of the stream. Returns a cudaError_t: 0 is success. Allocates nothing and
// waits for nothing.
int launch_topk_merge(const TopKMergeParams& params, CudaStream stream);
// Into how many parts each of `rows` rows, the longest with `longest` scores, fills the device.
int topk_parts(int64_t rows, int64_t longest, int64_t k, int64_t* parts);
// The same where a TeamSelector can take a part whole: fewer and longer ones. score_bytes: what is
// read for a score.
int team_parts(int64_t rows, int64_t longest, int64_t k, int64_t score_bytes, int64_t* parts);

}  // namespace longclock
