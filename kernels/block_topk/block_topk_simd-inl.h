// SPDX-License-Identifier: Apache-2.0
#include "../common/scratch.h"
#include "block_topk.h"
#include "topk_buffer-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// One pass over a part of a row. 32-bit scores are read where they lie, others through a block that
// stays in the first-level cache.
template <class T>
void select_part(const T* row, int64_t begin, int64_t end, TopKBuffer* best) {
  alignas(64) float block[kTopKBlock];
  for (int64_t at = begin; at < end; at += kTopKBlock) {
    const int64_t n = smaller(kTopKBlock, end - at);
    if constexpr (sizeof(T) == 4) {
      if (n == kTopKBlock) {
        best->push(row + at, nullptr, n, at);
        continue;
      }
    }
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(load(row + at + i), block + i);
    if (i < n) store(load_partial(row + at + i, n - i), block + i);
    best->push(block, nullptr, n, at);
  }
}

// A bar that somewhat more than k scores of [begin, end) should pass, from evenly spaced ones; NaN
// where sampling does not pay.
template <class T>
float sampled_bar(const T* row, int64_t begin, int64_t end, int64_t k) {
  constexpr int64_t kSamples = 512;
  const int64_t step = (end - begin) / kSamples;
  if (step < 8) return __builtin_nanf("");
  TopKEntry samples[kSamples];
  for (int64_t i = 0; i < kSamples; ++i) {
    samples[i] = topk_entry(to_float(row[begin + i * step]), i);
  }
  const int64_t rank = sampled_rank(static_cast<float>(k) / static_cast<float>(step));
  if (rank > kSamples / 2) return __builtin_nanf("");
  select_largest(samples, kSamples, rank);
  const uint32_t ordered = static_cast<uint32_t>(samples[rank - 1] >> 32);
  return entry_score(uint64_t{ordered - 1} << 32);  // ties of the sample pass as well
}

template <class T>
TopKBuffer select(const T* row, int64_t begin, int64_t end, int64_t k, TopKEntry* buffer) {
  const float bar = sampled_bar(row, begin, end, k);
  if (bar == bar) {
    TopKBuffer best(buffer, k, bar);
    select_part(row, begin, end, &best);
    if (best.size() >= k) return best;
  }
  TopKBuffer best(buffer, k);
  select_part(row, begin, end, &best);
  return best;
}

}  // namespace

void block_topk(const BlockTopKParams& p, int64_t begin, int64_t end) {
  Scratch scratch;
  TopKEntry* buffer = scratch.take<TopKEntry>(topk_capacity(p.k));
  for (int64_t task = begin; task < end; ++task) {
    const int64_t row = task / p.parts, part = task % p.parts;
    const int64_t length = p.lengths ? p.lengths[row] : p.columns;
    const int64_t part_length = (length + p.parts - 1) / p.parts;
    const int64_t first = smaller(length, part * part_length);
    const int64_t last = smaller(length, first + part_length);
    TopKBuffer best;
    LONGCLOCK_WITH_DTYPE(p.dtype, T,
                         const T* scores = static_cast<const T*>(p.scores) + row * p.row_stride;
                         best = select<T>(scores, first, last, p.k, buffer));
    int64_t count = best.size();
    if (count > p.k) {
      select_largest(buffer, count, p.k);
      count = p.k;
    }
    TopKEntry* out = p.entries + task * p.k;
    for (int64_t i = 0; i < p.k; ++i) out[i] = i < count ? buffer[i] : 0;
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
