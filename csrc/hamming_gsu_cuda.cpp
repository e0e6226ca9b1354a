// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "longclock/hamming_gsu/hamming_gsu.h"
#include "search/search_cuda.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> hamming_gsu(LONGCLOCK_HASH_SEARCH(LONGCLOCK_PARAMETER) int64_t k) {
  constexpr const char* op = "hamming_gsu";
  check_k(op, k);
  CudaCall cuda(op, "query", query);
  const DeviceSearchInputs search(op, cuda, LONGCLOCK_HASH_SEARCH_ARGUMENTS);
  DeviceSearchTopKCall call(cuda, search, /*scale=*/1.0, k);
  if (call.is_empty()) return {call.scores, call.indices};
  call.cut_for_teams(cuda);
  cuda.check_launch(launch_hamming_gsu(call.params, cuda.stream()));
  return {call.scores, call.indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("hamming_gsu", TORCH_BOX(&hamming_gsu));
}

}  // namespace longclock
