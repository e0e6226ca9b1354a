// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "block_topk_call.h"
#include "common/dispatch.h"
#include "common/parallel.h"

namespace longclock {
namespace {

std::vector<int64_t> with_last(const Tensor& tensor, int64_t last) {
  std::vector<int64_t> shape(tensor.sizes().begin(), tensor.sizes().end());
  shape.back() = last;
  return shape;
}

}  // namespace

BlockTopKCall::BlockTopKCall(const Tensor& scores_in, int64_t k, const OptionalTensor& lengths_in) {
  constexpr const char* op = "block_topk";
  params.dtype = check_float(op, "scores", scores_in);
  check(scores_in.dim() >= 1, op, ": scores must have at least one dimension, got a scalar");
  check_k(op, k);
  params.columns = scores_in.size(scores_in.dim() - 1);
  check_count(op, "scores.shape[-1]", params.columns);
  const bool strided = scores_in.dim() == 2 && (scores_in.stride(1) == 1 || params.columns <= 1);
  scores = strided ? scores_in : as_contiguous(scores_in);
  params.rows = 1;
  for (int64_t d = 0; d + 1 < scores.dim(); ++d) params.rows *= scores.size(d);
  if (lengths_in) {
    check_int(op, "lengths", *lengths_in);
    bool fits = lengths_in->dim() + 1 == scores.dim();
    for (int64_t d = 0; fits && d < lengths_in->dim(); ++d) {
      fits = lengths_in->size(d) == scores.size(d);
    }
    check(fits, op,
          ": lengths must have the shape of scores without its last dimension; scores has ",
          shape_of(scores), ", got ", shape_of(*lengths_in));
    lengths = as_contiguous(*lengths_in);
    params.lengths = int_array(lengths);
  }
  top_scores = make_empty(scores, with_last(scores, k));
  indices = make_empty(scores, with_last(scores, k), ScalarType::Long);
  params.scores = scores.const_data_ptr();
  params.row_stride = strided ? scores.stride(0) : params.columns;
  params.k = k;
  params.parts = 1;
  params.top_scores = top_scores.mutable_data_ptr();
  params.indices = static_cast<int64_t*>(indices.mutable_data_ptr());
}

BlockTopKBackwardCall::BlockTopKBackwardCall(const Tensor& grad_in, const Tensor& indices_in,
                                             int64_t m) {
  constexpr const char* op = "block_topk_backward";
  params.dtype = check_float(op, "grad", grad_in);
  check_defined(op, "indices", indices_in);
  check(grad_in.dim() >= 1 && same_shape(grad_in, indices_in) &&
            indices_in.scalar_type() == ScalarType::Long,
        op, ": indices must be int64 of grad's shape ", shape_of(grad_in), ", got ",
        dtype_of(indices_in), " ", shape_of(indices_in));
  check(m >= 0, op, ": m must be at least 0, got ", m);
  check_count(op, "m", m);
  grad = as_contiguous(grad_in);
  indices = as_contiguous(indices_in);
  out = make_empty(grad, with_last(grad, m));
  params.grad = grad.const_data_ptr();
  params.indices = static_cast<const int64_t*>(indices.const_data_ptr());
  params.rows = m == 0 ? 0 : out.numel() / m;
  params.k = grad.size(grad.dim() - 1);
  params.columns = m;
  params.out = out.mutable_data_ptr();
}

namespace {

// A part of a row that is worth a task of its own.
constexpr int64_t kMinScores = 65536;

std::tuple<Tensor, Tensor> block_topk(const Tensor& scores, int64_t k,
                                      const OptionalTensor& lengths) {
  BlockTopKCall call(scores, k, lengths);
  BlockTopKParams& params = call.params;
  const int64_t rows = params.rows, columns = params.columns;
  for (int64_t row = 0; params.lengths && row < rows; ++row) {
    const int64_t length = params.lengths[row];
    check(length >= 0 && length <= columns, "block_topk: lengths must be from 0 to ", columns,
          ", got ", length, " at ", row);
  }
  if (rows == 0 || k == 0) return {call.top_scores, call.indices};

  const int64_t work = rows * columns;
  const int64_t wanted = (2 * worthwhile_threads(work) + rows - 1) / rows;
  params.parts = std::clamp<int64_t>(columns / kMinScores, 1, std::max<int64_t>(wanted, 1));
  std::vector<TopKEntry> entries;
  if (params.parts > 1) entries.resize(static_cast<size_t>(rows * params.parts * k));
  params.entries = entries.data();
  parallel_tasks(rows * params.parts, work,
                 [&](int64_t begin, int64_t end) { block_topk_cpu(params, begin, end); });
  if (params.parts > 1) {
    parallel_tasks(rows, rows * params.parts * k,
                   [&](int64_t begin, int64_t end) { block_topk_merge_cpu(params, begin, end); });
  }
  return {call.top_scores, call.indices};
}

Tensor block_topk_backward(const Tensor& grad, const Tensor& indices, int64_t m) {
  const BlockTopKBackwardCall call(grad, indices, m);
  for (int64_t i = 0; i < call.indices.numel(); ++i) {
    check(call.params.indices[i] < m, "block_topk_backward: indices must be less than ", m,
          ", got ", call.params.indices[i]);
  }
  parallel_tasks(call.params.rows, call.out.numel(), [&](int64_t begin, int64_t end) {
    block_topk_backward_cpu(call.params, begin, end);
  });
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("block_topk(Tensor scores, int k, Tensor? lengths) -> (Tensor scores, Tensor indices)");
  m.def("block_topk_backward(Tensor grad, Tensor indices, int m) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("block_topk", TORCH_BOX(&block_topk));
  m.impl("block_topk_backward", TORCH_BOX(&block_topk_backward));
}

}  // namespace longclock
