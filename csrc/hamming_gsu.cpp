// SPDX-License-Identifier: Apache-2.0
#include "longclock/hamming_gsu/hamming_gsu.h"

#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"
#include "search/topk_search.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> hamming_gsu(LONGCLOCK_HASH_SEARCH(LONGCLOCK_PARAMETER) int64_t k) {
  constexpr const char* op = "hamming_gsu";
  check_k(op, k);
  Search search(op, LONGCLOCK_HASH_SEARCH_ARGUMENTS);
  HammingGsuParams params{};
  params.queries = static_cast<const uint64_t*>(search.queries.const_data_ptr());
  return search_topk(op, search, k, /*tile=*/1, params, hamming_gsu_cpu);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("hamming_gsu(" LONGCLOCK_HASH_SEARCH(
      LONGCLOCK_SCHEMA) "int k) -> (Tensor scores, Tensor indices)");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("hamming_gsu", TORCH_BOX(&hamming_gsu));
}

}  // namespace longclock
