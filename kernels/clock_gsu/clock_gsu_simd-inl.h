// SPDX-License-Identifier: Apache-2.0
#include "../block_topk/topk_buffer-inl.h"
#include "../gsu_score/behaviour_block-inl.h"
#include "clock_gsu.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

static_assert(kBehaviourBlock <= kTopKBlock);

// One pass over the behaviours. Memory-bound for one query: every key is read once, in order; a
// block's scores go to the selection while they are in the first-level cache. Many queries of one
// moment share the time term and each block of keys.
template <class T>
void search(const ClockGsuParams& p, const SearchTask& task) {
  const Group& group = p.groups[task.group];
  const int64_t count = task.query_end - task.query_begin;
  Scratch scratch;
  BlockScorer<T> scorer(p.behaviours, p.scale, p.queries + task.query_begin * p.query_stride,
                        p.query_stride, count, group.query_end - group.query_begin > 1, &scratch);
  float* scores = scratch.take<float>(count * kScoreStride);
  TopKEntry* entries = scratch.take<TopKEntry>(count * topk_capacity(p.k));
  TopKBuffer* best = scratch.take<TopKBuffer>(count);
  for (int64_t q = 0; q < count; ++q) best[q] = TopKBuffer(entries + q * topk_capacity(p.k), p.k);
  for (int64_t at = task.begin; at < task.end; at += kBehaviourBlock) {
    const int64_t n = smaller(kBehaviourBlock, task.end - at);
    const BehaviourBlock<T>& block = scorer.score(group, at, n, scores, kScoreStride);
    if (!block.any_kept) continue;
    const uint8_t* keep = block.all_kept ? nullptr : block.keep;
    for (int64_t q = 0; q < count; ++q) best[q].push(scores + q * kScoreStride, keep, n, at);
  }
  for (int64_t q = 0; q < count; ++q) {
    const int64_t query = task.query_begin + q;
    TopKEntry* found = best[q].entries();
    int64_t size = best[q].size();
    if (p.parts == 1) {
      write_topk(found, size, p.k, p.scores + query * p.k, p.indices + query * p.k);
      continue;
    }
    if (size > p.k) {
      select_largest(found, size, p.k);
      size = p.k;
    }
    TopKEntry* out = p.entries + (query * p.parts + task.part) * p.k;
    for (int64_t i = 0; i < size; ++i) out[i] = found[i];
  }
}

}  // namespace

void clock_gsu(const ClockGsuParams& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, search<T>(p, p.tasks[task]));
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
