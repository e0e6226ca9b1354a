// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "block_topk_call.h"
#include "common/cuda_call.h"
#include "longclock/common/device.h"
#include "longclock/selection/topk_merge.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> block_topk(const Tensor& scores, int64_t k,
                                      const OptionalTensor& lengths) {
  CudaCall cuda("block_topk", "scores", scores);
  if (lengths) cuda.check_device("lengths", *lengths);
  BlockTopKCall call(scores, k, lengths);
  BlockTopKParams& params = call.params;
  if (params.rows == 0 || k == 0) return {call.top_scores, call.indices};
  cuda.reads(call.scores);
  if (lengths) cuda.reads(call.lengths);
  cuda.writes(call.top_scores);
  cuda.writes(call.indices);
  params.check = device_checks();
  const int64_t score_bytes = size_of(params.dtype);
  cuda.check_launch(team_parts(params.rows, params.columns, k, score_bytes, &params.parts));
  Tensor entries;
  if (params.parts > 1) {
    entries = output(cuda, call.indices, {params.rows, params.parts, k}, ScalarType::Long);
    params.entries = data<TopKEntry>(entries);
  }
  cuda.check_launch(launch_block_topk(params, cuda.stream()));
  return {call.top_scores, call.indices};
}

Tensor block_topk_backward(const Tensor& grad, const Tensor& indices, int64_t m) {
  CudaCall cuda("block_topk_backward", "grad", grad);
  cuda.check_device("indices", indices);
  const BlockTopKBackwardCall call(grad, indices, m);
  cuda.reads(call.grad);
  cuda.reads(call.indices);
  cuda.writes(call.out);
  cuda.check_launch(launch_block_topk_backward(call.params, cuda.stream()));
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("block_topk", TORCH_BOX(&block_topk));
  m.impl("block_topk_backward", TORCH_BOX(&block_topk_backward));
}

}  // namespace longclock
