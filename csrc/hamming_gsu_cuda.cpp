// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "../kernels/block_topk/block_topk.h"
#include "../kernels/hamming_gsu/hamming_gsu.h"
#include "common/search_cuda.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> hamming_gsu(const Tensor& query, const Tensor& keys,
                                       const Tensor& key_time, const Tensor& query_time,
                                       LONGCLOCK_LAYOUT_PARAMETERS, int64_t k) {
  constexpr const char* op = "hamming_gsu";
  check_k(op, k);
  CudaCall cuda(op, "query", query);
  const DeviceSearchInputs search(op, cuda, LONGCLOCK_HASH_SEARCH_ARGUMENTS);
  std::vector<int64_t> shape = search.query_shape;
  shape.push_back(k);
  const Tensor scores = output(cuda, keys, shape, ScalarType::Float);
  const Tensor indices = output(cuda, keys, shape, ScalarType::Long);
  if (k == 0 || search.query_count == 0) return {scores, indices};

  HammingGsuDeviceParams params{};
  params.search = search.params(/*scale=*/1.0);
  params.k = k;
  params.scores = data<float>(scores);
  params.indices = data<int64_t>(indices);
  cuda.check_launch(topk_parts(
      search.query_count, search.dense() ? search.columns : search.positions, k, &params.parts));
  Tensor entries;
  if (params.parts > 1) {
    entries = output(cuda, indices, {search.query_count, params.parts, k}, ScalarType::Long);
    params.entries = data<TopKEntry>(entries);
  }
  cuda.check_launch(launch_hamming_gsu(params, cuda.stream()));
  return {scores, indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("hamming_gsu", TORCH_BOX(&hamming_gsu));
}

}  // namespace longclock
