// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "longclock/clock_gsu/clock_gsu.h"
#include "longclock/search/few_candidates.h"
#include "longclock/search/many_candidates.h"
#include "search/search_cuda.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> clock_gsu(LONGCLOCK_SEARCH(LONGCLOCK_PARAMETER)
                                         LONGCLOCK_FEATURES(LONGCLOCK_PARAMETER)
                                             LONGCLOCK_IN_BYTES(LONGCLOCK_PARAMETER) int64_t k) {
  constexpr const char* op = "clock_gsu";
  check_k(op, k);
  CudaCall cuda(op, "query", query);
  const DeviceSearchInputs search(op, cuda, LONGCLOCK_ANY_SEARCH_ARGUMENTS);
  DeviceSearchTopKCall call(cuda, search, scale, k);
  if (call.is_empty()) return {call.scores, call.indices};
  SweepPlan many;
  cuda.check_launch(plan_sweep_topk(call.params.search, k, &many));
  if (many.supported) {
    const Tensor workspace = output(cuda, call.indices, {many.workspace_words}, ScalarType::Int);
    cuda.check_launch(
        launch_sweep_topk(call.params, many, workspace.mutable_data_ptr(), cuda.stream()));
    return {call.scores, call.indices};
  }
  FewPlan few;
  cuda.check_launch(plan_few_topk(call.params.search, k, &few));
  if (few.supported) {
    call.cut_into(cuda, few.tiles.parts);
    cuda.check_launch(launch_few_topk(call.params, few, cuda.stream()));
  } else {
    call.cut(cuda);
  }
  if (!few.supported || few.tiles.windows) {  // queries that share their rows with no other
    call.params.only_alone = few.tiles.windows;
    cuda.check_launch(launch_clock_gsu(call.params, cuda.stream()));
  }
  return {call.scores, call.indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("clock_gsu", TORCH_BOX(&clock_gsu));
}

}  // namespace longclock
