// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/parallel.h"
#include "longclock/search/topk_tasks.h"
#include "search/search.h"

namespace longclock {

// The k best behaviours of every query, as scores and indices; see search_topk() of the core.
template <class Params, class Kernel>
std::tuple<Tensor, Tensor> search_topk(const char* op, Search& search, int64_t k, int64_t tile,
                                       Params params, const Kernel& kernel) {
  std::vector<int64_t> shape = search.query_shape;
  shape.push_back(k);
  Tensor scores = make_empty(search.keys, shape, ScalarType::Float);
  Tensor indices = make_empty(search.keys, shape, ScalarType::Long);
  params.k = k;
  params.scores = static_cast<float*>(scores.mutable_data_ptr());
  params.indices = static_cast<int64_t*>(indices.mutable_data_ptr());
  search_topk(op, search.behaviours, search, search.query_count, tile, torch_threads(), params,
              kernel);
  return {scores, indices};
}

}  // namespace longclock
