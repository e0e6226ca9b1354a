// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/many_candidates.h"
#include "search/search_cuda.h"

namespace longclock {
namespace {

// A search with the place of every query's scores, in a flat result of `total` elements.
struct DeviceScores {
  DeviceSearchParams search;
  Tensor score_begin;

  DeviceScores(const char* op, CudaCall& cuda, const DeviceSearchInputs& inputs, double scale,
               std::optional<int64_t> total)
      : search(inputs.params(scale)) {
    const bool counted = inputs.layout == SearchLayout::kWindows || inputs.query_offsets;
    check(!counted || total, op,
          ": total must be given on CUDA for windows and for ragged with query_offsets, got None; "
          "count it where the starts and ends are made");
    search.score_count = inputs.dense() ? inputs.query_count * inputs.columns
                         : counted      ? *total
                                        : inputs.positions;
    check(!total || (*total >= 0 && (counted || *total == search.score_count)), op,
          ": total must be ", search.score_count, ", the number of scores, got ",
          total.value_or(0));
    if (!counted) return;
    score_begin = output(cuda, inputs.query_time, {inputs.query_count + 1 + kScoreBeginParts},
                         ScalarType::Long);
    search.score_begin = data<int64_t>(score_begin);
    cuda.check_launch(launch_score_begin(search, data<int64_t>(score_begin), cuda.stream()));
  }
};

Tensor gsu_score(LONGCLOCK_SEARCH(LONGCLOCK_PARAMETER) LONGCLOCK_FEATURES(LONGCLOCK_PARAMETER)
                     LONGCLOCK_IN_BYTES(LONGCLOCK_PARAMETER) std::optional<int64_t>
                         total) {
  constexpr const char* op = "gsu_score";
  CudaCall cuda(op, "query", query);
  const DeviceSearchInputs inputs(op, cuda, LONGCLOCK_ANY_SEARCH_ARGUMENTS);
  const DeviceScores scores(op, cuda, inputs, scale, total);
  const Tensor out =
      output(cuda, keys, inputs.score_shape(scores.search.score_count), ScalarType::Float);
  SweepPlan many;
  cuda.check_launch(plan_sweep_scores(scores.search, &many));
  if (!many.supported) {
    cuda.check_launch(launch_gsu_score(scores.search, data<float>(out), cuda.stream()));
    return out;
  }
  const Tensor workspace = output(cuda, out, {many.workspace_words}, ScalarType::Int);
  cuda.check_launch(launch_sweep_scores(scores.search, many, workspace.mutable_data_ptr(),
                                        data<float>(out), cuda.stream()));
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> gsu_score_backward(
    const Tensor& grad_in, LONGCLOCK_SEARCH(LONGCLOCK_PARAMETER) bool need_query, bool need_keys,
    bool need_mlp) {
  constexpr const char* op = "gsu_score_backward";
  CudaCall cuda(op, "query", query);
  const DeviceSearchInputs inputs(op, cuda, LONGCLOCK_SEARCH_ARGUMENTS);
  check_defined(op, "grad", grad_in);
  const DeviceScores scores(op, cuda, inputs, scale,
                            inputs.dense() ? std::nullopt : std::optional(grad_in.numel()));
  check(grad_in.scalar_type() == ScalarType::Float && grad_in.numel() == scores.search.score_count,
        op, ": grad must be float32 with ", scores.search.score_count,
        " elements, as the scores, got ", dtype_of(grad_in), " ", shape_of(grad_in));
  const Tensor grad = input(cuda, "grad", grad_in);
  DeviceGsuScoreBackwardParams params{};
  params.search = scores.search;
  params.grad = static_cast<const float*>(grad.const_data_ptr());

  const auto none = [](const Tensor& like) { return make_empty(like, {0}); };
  Tensor query_grad = none(query), key_grad = none(keys), query_partial;
  if (need_query) {
    query_grad = output(cuda, query, query.sizes(), query.scalar_type());
    params.query_grad = query_grad.mutable_data_ptr();
    cuda.check_launch(gsu_score_query_sums(params.search, &params.sums, &params.parts));
    if (params.parts > 1) {
      query_partial = output(cuda, query, {inputs.query_count, params.sums, inputs.behaviours.dim},
                             ScalarType::Float);
      params.query_partial = data<float>(query_partial);
    }
    cuda.check_launch(launch_gsu_score_query_grad(params, cuda.stream()));
  }
  if (need_keys) {
    key_grad = output(cuda, keys, keys.sizes(), keys.scalar_type());
    params.key_grad = key_grad.mutable_data_ptr();
    Tensor windows;
    if (inputs.layout == SearchLayout::kWindows) {
      int64_t bytes = 0;
      cuda.check_launch(gsu_score_windows_bytes(params.search, &bytes));
      windows = output(cuda, keys, {bytes}, ScalarType::Byte);
      cuda.check_launch(launch_gsu_score_windows(params.search, windows.mutable_data_ptr(),
                                                 &params.windows, cuda.stream()));
    }
    if (ids) {
      check(inputs.table_rows() <= 0xfffffffe, op, ": keys must have fewer than 2^32 rows, got ",
            shape_of(keys));
      check(inputs.positions <= 0xffffffff, op, ": ids must be fewer than 2^32, got ",
            shape_of(*ids), "; call with fewer sequences at a time");
      int64_t bytes = 0;
      cuda.check_launch(gsu_score_table_grad_bytes(params, &bytes));
      const Tensor workspace = output(cuda, keys, {bytes}, ScalarType::Byte);
      cuda.check_launch(
          launch_gsu_score_table_grad(params, workspace.mutable_data_ptr(), cuda.stream()));
    } else {
      cuda.check_launch(launch_gsu_score_key_grad(params, cuda.stream()));
    }
  }
  if (!need_mlp) return {query_grad, key_grad, none(w1), none(b1), none(w2), none(b2)};

  params.s_count = inputs.positions;
  if (inputs.layout == SearchLayout::kWindows) {
    // Their lengths, of which the host knows the sum over queries, and that each is at most T.
    const int64_t most = params.search.score_count;
    params.s_of_windows = inputs.sequences > 0 && inputs.positions <= most / inputs.sequences;
    params.s_count = params.s_of_windows ? inputs.sequences * inputs.positions : most;
  }
  // Zeros: flat sequences need not cover every position.
  const Tensor s_grad = torch::stable::new_zeros(keys, {params.s_count}, ScalarType::Float);
  const Tensor s_delta = torch::stable::new_zeros(
      keys, {inputs.behaviours.time.clocks, params.s_count}, ScalarType::Int);
  cuda.updates(s_grad);
  cuda.updates(s_delta);
  params.s_grad = data<float>(s_grad);
  params.s_delta = data<int32_t>(s_delta);
  cuda.check_launch(launch_gsu_score_s_grad(params, cuda.stream()));
  const auto [w1_grad, b1_grad, w2_grad, b2_grad] =
      time_mlp_gradient(cuda, *inputs.mlp, s_delta, s_grad);
  return {query_grad, key_grad, w1_grad, b1_grad, w2_grad, b2_grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("gsu_score", TORCH_BOX(&gsu_score));
  m.impl("gsu_score_backward", TORCH_BOX(&gsu_score_backward));
}

}  // namespace longclock
