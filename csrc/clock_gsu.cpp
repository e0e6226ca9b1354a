// SPDX-License-Identifier: Apache-2.0
#include "longclock/clock_gsu/clock_gsu.h"

#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"
#include "search/topk_search.h"

namespace longclock {
namespace {

std::tuple<Tensor, Tensor> clock_gsu(LONGCLOCK_SEARCH(LONGCLOCK_PARAMETER)
                                         LONGCLOCK_FEATURES(LONGCLOCK_PARAMETER)
                                             LONGCLOCK_IN_BYTES(LONGCLOCK_PARAMETER) int64_t k) {
  constexpr const char* op = "clock_gsu";
  check_k(op, k);
  Search search(op, LONGCLOCK_ANY_SEARCH_ARGUMENTS);
  if (k > 0) search.tabulate();
  DotSearchParams params{};
  params.queries = static_cast<const float*>(search.queries.const_data_ptr());
  params.query_stride = search.query_stride;
  params.scale = static_cast<float>(scale);
  return search_topk(op, search, k, kCandidatePanel, params, clock_gsu_cpu);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("clock_gsu(" LONGCLOCK_SEARCH(LONGCLOCK_SCHEMA) LONGCLOCK_FEATURES(LONGCLOCK_SCHEMA)
            LONGCLOCK_IN_BYTES(LONGCLOCK_SCHEMA) "int k) -> (Tensor scores, Tensor indices)");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("clock_gsu", TORCH_BOX(&clock_gsu));
}

}  // namespace longclock
