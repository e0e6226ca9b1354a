// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/search/search_topk.h"
#include "longclock/search/search_work.h"

namespace longclock {

// Fills params.scores and params.indices with the params.k best behaviours of every query. `params`
// has these and what is the search's own; kernel(params, begin, end) does tasks, whose queries are
// cut at multiples of `tile`.
template <class Params, class Kernel>
void search_topk(const char* op, const Behaviours& behaviours, SearchWork& work, int64_t queries,
                 int64_t tile, const Threads& threads, Params params, const Kernel& kernel) {
  if (params.k == 0 || queries == 0) return;
  const std::vector<SearchTask>& tasks = work.cut(/*into_parts=*/true, tile, threads);
  const int64_t found = queries * work.parts() * params.k;
  std::vector<TopKEntry> entries;
  if (work.parts() > 1) entries.resize(static_cast<size_t>(found));
  params.behaviours = behaviours;
  params.groups = work.groups.data();
  params.tasks = tasks.data();
  params.parts = work.parts();
  params.entries = entries.data();
  run_tasks(op, behaviours, work, tasks, threads,
            [&](int64_t begin, int64_t end) { kernel(params, begin, end); });
  if (work.parts() > 1) {
    parallel_tasks(threads, queries, found,
                   [&](int64_t begin, int64_t end) { search_merge_cpu(params, begin, end); });
  }
}

}  // namespace longclock
