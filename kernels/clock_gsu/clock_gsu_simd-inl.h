// SPDX-License-Identifier: Apache-2.0
#include "longclock/clock_gsu/clock_gsu.h"
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/search/candidate_search-inl.h"
#include "longclock/search/few_search-inl.h"
#include "longclock/search/repeated_search-inl.h"
#include "longclock/selection/sort_largest-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// Into `entries`, or sorted into the outputs where the sequence is not cut into parts.
inline void write(const DotSearchParams& p, int64_t query, int64_t part, TopKBuffer& best) {
  TopKEntry* found = best.entries();
  if (p.parts == 1) {
    write_sorted(found, sort_largest(found, best.size(), p.k), p.k, p.scores + query * p.k,
                 p.indices + query * p.k);
    return;
  }
  const int64_t size = best.keep_best();
  TopKEntry* out = p.entries + (query * p.parts + part) * p.k;
  for (int64_t i = 0; i < size; ++i) out[i] = found[i];
}

// All candidates of a task.
inline void write_all(const DotSearchParams& p, const SearchTask& task, TopKBuffer* best) {
  const int64_t count = task.query_end - task.query_begin;
  for (int64_t i = 0; i < count; ++i) {
    const TopKBuffer& next = best[min_of(i + 1, count - 1)];
    prefetch_row(next.entries(), next.size() * static_cast<int64_t>(sizeof(TopKEntry)));
    write(p, task.query_begin + i, task.part, best[i]);
  }
}

// By either search of many candidates.
template <class ManySearch>
void search_many(const DotSearchParams& p, const SearchTask& task, ManySearch* search,
                 Scratch* scratch) {
  const int64_t count = task.query_end - task.query_begin, capacity = topk_capacity(p.k);
  TopKEntry* entries = scratch->take<TopKEntry>(count * capacity);
  TopKBuffer* best = scratch->take<TopKBuffer>(count);
  const float** queries = scratch->take<const float*>(count);
  for (int64_t i = 0; i < count; ++i) {
    best[i] = TopKBuffer(entries + i * capacity, p.k);
    queries[i] = p.queries + (task.query_begin + i) * p.query_stride;
  }
  const int64_t enough = min_of(p.k, search->find(queries, count, /*sample=*/true, best));
  // Those whose threshold was too high, together, once more.
  int64_t again = 0;
  int64_t* which = scratch->take<int64_t>(count);
  for (int64_t i = 0; i < count; ++i) {
    if (best[i].size() < enough) which[again++] = i;
  }
  if (again > 0) {
    TopKBuffer* found = scratch->take<TopKBuffer>(again);
    for (int64_t i = 0; i < again; ++i) {
      found[i] = TopKBuffer(best[which[i]].entries(), p.k);
      queries[i] = queries[which[i]];
    }
    search->find(queries, again, /*sample=*/false, found);
    for (int64_t i = 0; i < again; ++i) best[which[i]] = found[i];
  }
  write_all(p, task, best);
}

// Candidates of a task from which on it pays to look for rows that repeat.
constexpr int64_t kMinCandidates = 16;

template <class T>
void search(const DotSearchParams& p, const SearchTask& task) {
  const Group& group = p.groups[task.group];
  const int64_t count = task.query_end - task.query_begin;
  Scratch scratch;
  if (are_few(group)) {
    FewSearch<typename AsFloats<T>::Type> few(p, task, &scratch);
    return write_all(p, task, few.find());
  }
  if (p.behaviours.ids && p.behaviours.feature_count == 0 && count >= kMinCandidates) {
    const DistinctRows<T> distinct(p.behaviours, group, task.begin, task.end, &scratch);
    if (distinct.all()) {
      RepeatedSearch<T> repeated(p, distinct, &scratch);
      return search_many(p, task, &repeated, &scratch);
    }
  }
  CandidateSearch<T> every(p, task, count, &scratch);
  search_many(p, task, &every, &scratch);
}

}  // namespace

void clock_gsu(const DotSearchParams& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    with_elements(p.behaviours, [&](auto element) { search<decltype(element)>(p, p.tasks[task]); });
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_BF16_ENTRY(clock_gsu, DotSearchParams)
