// SPDX-License-Identifier: Apache-2.0
#include "../kernels/hamming_gsu/hamming_gsu.h"

#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/search.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> hamming_gsu(const Tensor& query, const Tensor& keys,
                                       const Tensor& key_time, const Tensor& query_time,
                                       LONGCLOCK_LAYOUT_PARAMETERS, int64_t k) {
  check_k("hamming_gsu", k);
  Search search("hamming_gsu", LONGCLOCK_HASH_SEARCH_ARGUMENTS);
  std::vector<int64_t> shape = search.query_shape;
  shape.push_back(k);
  Tensor scores = torch::stable::new_empty(keys, shape, ScalarType::Float);
  Tensor indices = torch::stable::new_empty(keys, shape, ScalarType::Long);
  if (k == 0 || search.query_count == 0) return {scores, indices};

  const std::vector<SearchTask>& tasks = search.cut(/*into_parts=*/true, /*tile=*/1);
  std::vector<TopKEntry> entries;
  if (search.parts() > 1)
    entries.resize(static_cast<size_t>(search.query_count * search.parts() * k));
  HammingGsuParams params{};
  params.behaviours = search.behaviours;
  params.queries = static_cast<const uint64_t*>(search.queries.const_data_ptr());
  params.groups = search.groups.data();
  params.tasks = tasks.data();
  params.k = k;
  params.parts = search.parts();
  params.entries = entries.data();
  params.scores = static_cast<float*>(scores.mutable_data_ptr());
  params.indices = static_cast<int64_t*>(indices.mutable_data_ptr());
  parallel_tasks(static_cast<int64_t>(tasks.size()), search.work(),
                 [&](int64_t begin, int64_t end) { hamming_gsu_cpu(params, begin, end); });
  if (search.parts() > 1) {
    parallel_tasks(search.query_count, search.query_count * search.parts() * k,
                   [&](int64_t begin, int64_t end) { hamming_gsu_merge_cpu(params, begin, end); });
  }
  return {scores, indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def(
      "hamming_gsu(Tensor query, Tensor keys, Tensor key_time, Tensor "
      "query_time, " LONGCLOCK_LAYOUT_SCHEMA ", int k) -> (Tensor scores, Tensor indices)");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("hamming_gsu", TORCH_BOX(&hamming_gsu));
}

}  // namespace longclock
