// SPDX-License-Identifier: Apache-2.0
// A block of behaviours made ready for scoring, and its scores. Used by gsu_score and clock_gsu.
#pragma once

#include "../circular_delta/clock-inl.h"
#include "../common/rows-inl.h"
#include "../common/scratch.h"
#include "../time_similarity/time_term-inl.h"
#include "behaviours.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int64_t kBehaviourBlock = kTimeBlock;
inline constexpr int64_t kPrefetchRows = 32;

template <class T>
struct BehaviourBlock {
  int64_t n;
  bool all_kept;                    // else `keep` says which count
  uint8_t keep[kBehaviourBlock];    // 0: not there, its row is never read
  int32_t delta[kBehaviourBlock];   // seconds; 0 where not there
  const T* rows[kBehaviourBlock];   // where not there: some row that is; none where none is
  bool any_kept;
  TimeFeatureBlock features;
  alignas(64) float s[kBehaviourBlock];
};

// Which behaviours [begin, begin + n) of the group are there, and how far from now on the clock.
template <class T>
inline void read_times(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                       BehaviourBlock<T>* block) {
  const int64_t at = g.position + begin;
  block->n = n;
  block->all_kept = b.mask == nullptr && !b.exclude_future;
  block->any_kept = true;
  const int32_t now = clock_time(g.now, b.period), period = static_cast<int32_t>(b.period);
  clock_times(b.key_time, at, 1, n, b.period, block->delta);
  for (int64_t i = 0; i < n; ++i) block->delta[i] = circular_delta(block->delta[i], now, period);
  if (block->all_kept) return;
  for (int64_t i = 0; i < n; ++i) block->keep[i] = b.mask == nullptr || b.mask[at + i] != 0;
  if (b.exclude_future) {
    with_ints(b.key_time, at, [&](auto* t) {
      for (int64_t i = 0; i < n; ++i) block->keep[i] &= t[i] < g.now;
    });
  }
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    kept += block->keep[i];
    if (block->keep[i] == 0) block->delta[i] = 0;
  }
  block->all_kept = kept == n;
  block->any_kept = kept > 0;
}

template <class T>
inline void find_rows(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                      BehaviourBlock<T>* block) {
  const T* keys = static_cast<const T*>(b.keys);
  if (!b.ids) {
    const T* first = keys + g.key_offset + begin * b.key_row_stride;
    for (int64_t i = 0; i < n; ++i) block->rows[i] = first + i * b.key_row_stride;
    return;
  }
  const T* some = nullptr;
  with_ints(b.ids, g.position + begin, [&](auto* ids) {
    for (int64_t i = 0; i < n; ++i) {
      const bool there = block->all_kept || block->keep[i] != 0;
      block->rows[i] = there ? keys + ids[i] * b.key_row_stride : nullptr;
      if (there) some = block->rows[i];
    }
  });
  if (block->all_kept) return;
  for (int64_t i = 0; i < n; ++i) {
    if (block->rows[i] == nullptr) block->rows[i] = some;
  }
}

template <class T>
inline void read_block(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                       BehaviourBlock<T>* block) {
  read_times(b, g, begin, n, block);
  find_rows(b, g, begin, n, block);
  if (b.time_table != nullptr) {
    for (int64_t i = 0; i < n; ++i) block->s[i] = b.time_table[block->delta[i]];
  } else {
    time_features(block->delta, n, b.mlp.unit, &block->features);
    time_similarity(b.mlp, block->features, n, block->s);
  }
}

// Scores of up to kTaskQueries queries against blocks of behaviours.
template <class T>
class BlockScorer {
 public:
  // queries: [count, dim], 32-bit, padded with zeros to a multiple of kLanes.
  BlockScorer(const Behaviours& b, float scale, const float* queries, int64_t query_stride,
              int64_t count, Scratch* scratch)
      : b_(b), scale_(scale), queries_(queries), count_(count), padded_(round_up(b.dim, kLanes)) {
    block_ = scratch->take<BehaviourBlock<T>>(1);
    scores_ = scratch->take<float>(count * kBehaviourBlock);
    if (count > 1) {
      wide_rows_ = scratch->take<const float*>(kBehaviourBlock);
      copies_ = scratch->take<float>(kBehaviourBlock * padded_);
      for (int64_t i = 0; i < count; ++i) query_rows_[i] = queries + i * query_stride;
    }
  }

  // Behaviours [begin, begin + n) of the group, n <= kBehaviourBlock.
  const BehaviourBlock<T>& score(const Group& g, int64_t begin, int64_t n) {
    BehaviourBlock<T>& block = *block_;
    read_block(b_, g, begin, n, &block);
    if (!block.any_kept) return block;
    if (count_ == 1) {
      dot_rows(queries_, block.rows, n, b_.dim, b_.ids ? kPrefetchRows : 0, scores_);
    } else {
      widen_rows(block.rows, n, b_.dim, copies_, wide_rows_);
      dot_tiles(query_rows_, count_, wide_rows_, n, padded_, scores_, kBehaviourBlock);
    }
    for (int64_t q = 0; q < count_; ++q) {
      float* scores = scores_ + q * kBehaviourBlock;
      for (int64_t i = 0; i < n; ++i) scores[i] = fma(scale_, scores[i], block.s[i]);
    }
    return block;
  }

  // Of the latest block; meaningless where not kept.
  const float* scores(int64_t query) const { return scores_ + query * kBehaviourBlock; }

 private:
  const Behaviours& b_;
  float scale_;
  const float* queries_;
  int64_t count_, padded_;
  BehaviourBlock<T>* block_;
  float* scores_;
  const float** wide_rows_ = nullptr;
  float* copies_ = nullptr;
  const float* query_rows_[kTaskQueries] = {};
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
