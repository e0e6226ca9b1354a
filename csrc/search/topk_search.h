// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/parallel.h"
#include "longclock/search/search_topk.h"
#include "search/search.h"

namespace longclock {

// The k best behaviours of every query, as scores and indices. `params` has what is the search's
// own; kernel(params, begin, end) does tasks, whose queries are cut at multiples of `tile`.
template <class Params, class Kernel>
std::tuple<Tensor, Tensor> search_topk(const char* op, Search& search, int64_t k, int64_t tile,
                                       Params params, const Kernel& kernel) {
  std::vector<int64_t> shape = search.query_shape;
  shape.push_back(k);
  Tensor scores = make_empty(search.keys, shape, ScalarType::Float);
  Tensor indices = make_empty(search.keys, shape, ScalarType::Long);
  if (k == 0 || search.query_count == 0) return {scores, indices};

  const std::vector<SearchTask>& tasks = search.cut(/*into_parts=*/true, tile);
  const int64_t found = search.query_count * search.parts() * k;
  std::vector<TopKEntry> entries;
  if (search.parts() > 1) entries.resize(static_cast<size_t>(found));
  params.behaviours = search.behaviours;
  params.groups = search.groups.data();
  params.tasks = tasks.data();
  params.k = k;
  params.parts = search.parts();
  params.entries = entries.data();
  params.scores = static_cast<float*>(scores.mutable_data_ptr());
  params.indices = static_cast<int64_t*>(indices.mutable_data_ptr());
  parallel_tasks(static_cast<int64_t>(tasks.size()), search.work(),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t task = begin; task < end; ++task) {
                     search.check_times(op, tasks[task]);
                   }
                   kernel(params, begin, end);
                 });
  if (search.parts() > 1) {
    parallel_tasks(search.query_count, found,
                   [&](int64_t begin, int64_t end) { search_merge_cpu(params, begin, end); });
  }
  return {scores, indices};
}

}  // namespace longclock
