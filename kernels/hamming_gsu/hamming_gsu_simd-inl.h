// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/hamming_gsu/hamming_gsu.h"
#include "longclock/search/nearest-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// Into `entries`, or the outputs where the sequence is not cut into parts.
inline void write(const HammingGsuParams& p, int64_t query, int64_t part, const Nearest& found) {
  TopKEntry* out = p.parts > 1 ? p.entries + (query * p.parts + part) * p.k : found.best;
  for (int64_t i = 0; i < found.size; ++i) {
    out[i] = topk_entry(score_of(found.best[i]), index_of(found.best[i]));
  }
  if (p.parts > 1) return;
  write_sorted(out, found.size, p.k, p.scores + query * p.k, p.indices + query * p.k);
}

// Each block is read once for all queries of the task and stays in the first-level cache for them.
void search(const HammingGsuParams& p, const SearchTask& task) {
  const Group& group = p.groups[task.group];
  const int64_t words = p.behaviours.dim, count = task.query_end - task.query_begin;
  Scratch scratch;
  HashBlock block(p.behaviours, &scratch);
  NearestFinder finder(p.k, words, &scratch);
  Nearest* nearest = scratch.take<Nearest>(count);
  for (int64_t i = 0; i < count; ++i) nearest[i] = {scratch.take<Neighbour>(p.k), 0, 0};
  for (int64_t begin = task.begin; begin < task.end; begin += kHashBlock) {
    block.read(group, begin, min_of(begin + kHashBlock, task.end));
    for (int64_t i = 0; i < count; ++i) {
      finder.add(block, p.queries + (task.query_begin + i) * words, nearest + i);
    }
  }
  for (int64_t i = 0; i < count; ++i) write(p, task.query_begin + i, task.part, nearest[i]);
}

}  // namespace

void hamming_gsu(const HammingGsuParams& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) search(p, p.tasks[task]);
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(hamming_gsu, HammingGsuParams)
