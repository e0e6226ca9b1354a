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
    TopKBuffer best(buffer, p.k);
    LONGCLOCK_WITH_DTYPE(p.dtype, T,
                         select_part(static_cast<const T*>(p.scores) + row * p.row_stride, first,
                                     last, &best));
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
