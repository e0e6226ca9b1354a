// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "../kernels/block_topk/block_topk.h"
#include "../kernels/clock_gsu/clock_gsu.h"
#include "../kernels/clock_gsu/clock_gsu_many.h"
#include "common/search_cuda.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> clock_gsu(LONGCLOCK_SEARCH_PARAMETERS, int64_t k) {
  constexpr const char* op = "clock_gsu";
  check_k(op, k);
  CudaCall cuda(op, "query", query);
  const DeviceSearchInputs search(op, cuda, LONGCLOCK_SEARCH_ARGUMENTS);
  std::vector<int64_t> shape = search.query_shape;
  shape.push_back(k);
  const Tensor scores = output(cuda, keys, shape, ScalarType::Float);
  const Tensor indices = output(cuda, keys, shape, ScalarType::Long);
  if (k == 0 || search.query_count == 0) return {scores, indices};

  ClockGsuDeviceParams params{};
  params.search = search.params(scale);
  params.k = k;
  params.scores = data<float>(scores);
  params.indices = data<int64_t>(indices);
  ClockGsuManyPlan many;
  cuda.check_launch(plan_clock_gsu_many(params.search, k, &many));
  if (many.suits) {
    const Tensor workspace = output(cuda, indices, {many.workspace_words}, ScalarType::Int);
    cuda.check_launch(
        launch_clock_gsu_many(params, many, workspace.mutable_data_ptr(), cuda.stream()));
    return {scores, indices};
  }
  cuda.check_launch(topk_parts(
      search.query_count, search.dense() ? search.columns : search.positions, k, &params.parts));
  Tensor entries;
  if (params.parts > 1) {
    entries = output(cuda, indices, {search.query_count, params.parts, k}, ScalarType::Long);
    params.entries = data<TopKEntry>(entries);
  }
  cuda.check_launch(launch_clock_gsu(params, cuda.stream()));
  return {scores, indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("clock_gsu", TORCH_BOX(&clock_gsu));
}

}  // namespace longclock
