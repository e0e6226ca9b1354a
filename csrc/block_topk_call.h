// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/checks.h"
#include "longclock/block_topk/block_topk.h"

namespace longclock {

// The arguments of block_topk, checked but for the values of lengths, and its outputs. Hold what
// the pointers point to.
struct BlockTopKCall {
  Tensor scores, lengths, top_scores, indices;
  BlockTopKParams params{};
  BlockTopKCall(const Tensor& scores, int64_t k, const OptionalTensor& lengths);
};

// The same for its gradient, but for the values of indices.
struct BlockTopKBackwardCall {
  Tensor grad, indices, out;
  BlockTopKBackwardParams params{};
  BlockTopKBackwardCall(const Tensor& grad, const Tensor& indices, int64_t m);
};

}  // namespace longclock
