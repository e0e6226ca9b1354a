// SPDX-License-Identifier: Apache-2.0
#include "../kernels/hamming_gsu/hamming_gsu.h"

#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"
#include "common/search_topk.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> hamming_gsu(const Tensor& query, const Tensor& keys,
                                       const Tensor& key_time, const Tensor& query_time,
                                       LONGCLOCK_LAYOUT_PARAMETERS, int64_t k) {
  constexpr const char* op = "hamming_gsu";
  check_k(op, k);
  Search search(op, LONGCLOCK_HASH_SEARCH_ARGUMENTS);
  HammingGsuParams params{};
  params.queries = static_cast<const uint64_t*>(search.queries.const_data_ptr());
  return search_topk(op, search, k, /*tile=*/1, params, hamming_gsu_cpu);
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
