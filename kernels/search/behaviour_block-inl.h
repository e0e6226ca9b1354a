// SPDX-License-Identifier: Apache-2.0
// A block of behaviours made ready for scoring, and its scores. Used by gsu_score, clock_gsu and
// esu_attention.
#pragma once

#include "longclock/common/ints-inl.h"
#include "longclock/common/rows-inl.h"
#include "longclock/common/scratch.h"
#include "longclock/search/behaviours.h"
#include "longclock/search/row_streams-inl.h"
#include "longclock/search/tile-inl.h"
#include "longclock/time/clock-inl.h"
#include "longclock/time/time_term-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int64_t kBehaviourBlock = kTimeBlock;
// Between rows of scores of a block: not a power of two of cache lines, so that a column of them
// spreads over all sets of the cache.
constexpr int64_t score_stride(int64_t block) { return block + 16; }
inline constexpr int64_t kScoreStride = score_stride(kBehaviourBlock);

template <class T, int64_t kSize = kBehaviourBlock>
struct BehaviourBlock {
  int64_t n;
  bool all_valid;        // else `valid` says which are
  uint8_t valid[kSize];  // 0: it never counts
  int32_t delta[kSize];  // seconds; 0 where not valid
  // Of one that is not valid: some valid row; none where none is. Room to read ahead.
  const T* rows[kSize + GatheredRows<T>::kAhead];
  bool any_valid;
  TimeFeatureBlock features;
  alignas(64) float s[kSize];
};

// Which behaviours begin, begin + step, ... of the group are valid, n of them, and how far from now
// on the clock.
template <class T, int64_t kSize>
inline void read_times(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                       BehaviourBlock<T, kSize>* block, int64_t step = 1) {
  const int64_t at = g.position + begin;
  block->n = n;
  block->all_valid = b.mask == nullptr && !b.exclude_future;
  block->any_valid = true;
  with_ints(b.key_time, at, [&](auto* t) {
    circular_deltas(t, step, &g.query_time, 0, n, b.period, block->delta);
  });
  if (block->all_valid) return;
  for (int64_t i = 0; i < n; ++i) block->valid[i] = b.mask == nullptr || b.mask[at + i * step] != 0;
  if (b.exclude_future) {
    with_ints(b.key_time, at, [&](auto* t) {
      for (int64_t i = 0; i < n; ++i) block->valid[i] &= t[i * step] < g.query_time;
    });
  }
  int64_t valid = 0;
  for (int64_t i = 0; i < n; ++i) {
    valid += block->valid[i];
    if (block->valid[i] == 0) block->delta[i] = 0;
  }
  block->all_valid = valid == n;
  block->any_valid = valid > 0;
}

template <class T, int64_t kSize>
inline void find_rows(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                      BehaviourBlock<T, kSize>* block, int64_t step = 1) {
  const T* keys = static_cast<const T*>(b.keys);
  if (!b.ids) {
    const T* first = keys + g.key_offset + begin * b.key_row_stride;
    for (int64_t i = 0; i < n; ++i) block->rows[i] = first + i * step * b.key_row_stride;
    return;
  }
  const T* some = nullptr;
  with_ints(b.ids, g.position + begin, [&](auto* ids) {
    for (int64_t i = 0; i < n; ++i) {
      const bool valid = block->all_valid || block->valid[i] != 0;
      block->rows[i] = valid ? keys + ids[i * step] * b.key_row_stride : nullptr;
      if (valid) some = block->rows[i];
    }
  });
  if (block->all_valid) return;
  for (int64_t i = 0; i < n; ++i) {
    if (block->rows[i] == nullptr) block->rows[i] = some;
  }
}

// s of behaviours [begin, end) of the block. Not inlined into its large callers, where GCC has no
// registers left for its loops.
template <class T, int64_t kSize>
__attribute__((noinline)) void read_s(const Behaviours& b, int64_t begin, int64_t end,
                                      BehaviourBlock<T, kSize>* block) {
  if (b.time_table != nullptr) {
    const float* s = b.time_table->s;
    for (int64_t i = begin; i < end; ++i) block->s[i] = s[block->delta[i]];
    return;
  }
  for (int64_t at = begin; at < end; at += kTimeBlock) {
    const int64_t n = min_of(kTimeBlock, end - at);
    time_features(block->delta + at, n, b.mlp.unit, &block->features);
    time_similarity(b.mlp, block->features, n, block->s + at);
  }
}

// Turns products into scores.
inline void add_s(float scale, const float* s, int64_t n, float* products) {
  for (int64_t i = 0; i < n; ++i) products[i] = fma(scale, products[i], s[i]);
}

template <class T, int64_t kSize>
inline void read_block(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                       BehaviourBlock<T, kSize>* block, int64_t step = 1) {
  read_times(b, g, begin, n, block, step);
  find_rows(b, g, begin, n, block, step);
  read_s(b, 0, n, block);
}

// A stream's behaviours of a part: more than in other blocks, as the prefetcher has to start again
// after whatever is done between parts.
inline constexpr int64_t kStreamBlock = 2048;
template <class T>
using StreamBlock = BehaviourBlock<T, kStreamBlock>;

// Dot products of one query with the behaviours of a group, a part of kStreams blocks at a time.
// Memory-bound: every row is read once, straight from where it lies.
template <class T>
class SpanProducts {
  using Words = typename WordsOf<T>::Type;

 public:
  // query: [dim], 32-bit, padded with zeros to a multiple of kLanes.
  SpanProducts(const Behaviours& b, const float* query, Scratch* scratch)
      : b_(b), row_bytes_(b.dim * static_cast<int64_t>(sizeof(T))) {
    const int64_t words = Words::words(b.dim), padded = round_up(words, kLanes);
    query_ = scratch->take<float>(padded);
    Words::from_floats(query, words, query_);
    for (int64_t i = words; i < padded; ++i) query_[i] = 0.0f;
    blocks_ = scratch->take<StreamBlock<T>>(kStreams);
    products_ = scratch->take<float>(kStreams * kStride);
  }

  // Behaviours [begin, end) of the group in order, one block after another. Calls prepare(block)
  // before rows are read, then finish(block, products, begin of the block), which may overwrite
  // both. Neither has s; products of what is not valid mean nothing, and there is room for kLanes
  // more.
  template <class Prepare, class Finish>
  void for_each_block(const Group& g, int64_t begin, int64_t end, const Prepare& prepare,
                      const Finish& finish) {
    for (int64_t n = 0; begin < end; begin += n) {
      n = next_part(end - begin);
      const int64_t most = round_up((n + kStreams - 1) / kStreams, kStreamRows);
      bool strided = !b_.ids && n % kLanes == 0;
      for (int64_t i = 0; i < kStreams; ++i) {
        const int64_t first = min_of(i * most, n);
        read_times(b_, g, begin + first, min_of(most, n - first), blocks_ + i);
        strided = strided && has_rows(blocks_[i]);
      }
      for (int64_t i = 0; i < kStreams; ++i) {
        if (has_rows(blocks_[i])) prepare(blocks_[i]);
      }
      if (strided) {
        multiply_strided(g, begin, most);
      } else {
        multiply_gathered(g, begin, most);
      }
      for (int64_t i = 0; i < kStreams; ++i) {
        if (blocks_[i].n > 0) finish(blocks_[i], products_ + i * kStride, begin + i * most);
      }
    }
  }

 private:
  static constexpr int64_t kStride = score_stride(kStreamBlock);

  // How many of the behaviours that are left the next part takes. Rows side by side fill all
  // streams alike and leave the last few to a part of their own, unless all are few.
  int64_t next_part(int64_t left) const {
    const int64_t n = min_of(kStreams * kStreamBlock, left);
    return b_.ids || n < 4 * kLanes ? n : n / kLanes * kLanes;
  }

  // A part whose blocks have n behaviours each, with rows side by side.
  void multiply_strided(const Group& g, int64_t begin, int64_t n) {
    const T* first[kStreams];
    for (int64_t i = 0; i < kStreams; ++i) {
      first[i] =
          static_cast<const T*>(b_.keys) + g.key_offset + (begin + i * n) * b_.key_row_stride;
    }
    multiply(StridedRows<T>(first, b_.key_row_stride, row_bytes_), n);
  }

  // A part whose longest block has n behaviours, up to a multiple of kStreamRows.
  void multiply_gathered(const Group& g, int64_t begin, int64_t n) {
    constexpr int64_t kAhead = GatheredRows<T>::kAhead;
    const T* some = nullptr;  // which rows without elements may be as well
    bool any = false;
    for (int64_t i = 0; i < kStreams; ++i) {
      if (!has_rows(blocks_[i])) continue;
      find_rows(b_, g, begin + i * n, blocks_[i].n, blocks_ + i);
      some = blocks_[i].rows[0];
      any = true;
    }
    if (!any) return;
    const T* const* first[kStreams];
    for (int64_t i = 0; i < kStreams; ++i) {
      // A shorter block goes on with any row.
      StreamBlock<T>& block = blocks_[i];
      for (int64_t j = has_rows(block) ? block.n : 0; j < n + kAhead; ++j) block.rows[j] = some;
      for (int64_t j = 0; j < kAhead; ++j) prefetch_far_row(block.rows[j], row_bytes_);
      first[i] = block.rows;
    }
    multiply(GatheredRows<T>(first), n);
  }

  template <class Rows>
  void multiply(const Rows& rows, int64_t n) {
    dot_streams<Words, T>(query_, rows, n, b_.dim, products_, kStride);
  }

  static bool has_rows(const StreamBlock<T>& block) { return block.n > 0 && block.any_valid; }

  const Behaviours& b_;
  int64_t row_bytes_;
  float* query_;  // in words
  StreamBlock<T>* blocks_;
  float* products_;
};

// Scores of up to kTaskQueries queries against blocks of behaviours, which they share: panels of
// keys.
template <class T>
class BlockScorer {
  using Words = typename WordsOf<T>::Type;

 public:
  // queries: [count, dim], 32-bit, padded with zeros to a multiple of kLanes.
  BlockScorer(const Behaviours& b, float scale, const float* queries, int64_t query_stride,
              int64_t count, Scratch* scratch)
      : b_(b), scale_(scale), count_(count) {
    block_ = scratch->take<BehaviourBlock<T>>(1);
    const int64_t words = Words::words(b.dim);
    panel_ = scratch->take<float>(kPanelLanes * words);
    rows_ = scratch->take<const char*>(count);
    float* row = scratch->take<float>(count * words);
    for (int64_t i = 0; i < count; ++i, row += words) {
      Words::from_floats(queries + i * query_stride, words, row);
      rows_[i] = reinterpret_cast<const char*>(row);
    }
  }

  // Scores behaviours [begin, begin + n) of the group, n <= kBehaviourBlock, into rows of out, a
  // query each, that have room for n rounded up to kPanelLanes. Scores of what is not valid mean
  // nothing.
  const BehaviourBlock<T>& score(const Group& g, int64_t begin, int64_t n, float* out,
                                 int64_t out_stride) {
    BehaviourBlock<T>& block = *block_;
    read_block(b_, g, begin, n, &block);
    if (!block.any_valid) return block;
    for (int64_t at = 0; at < n; at += kPanelLanes) {
      if (b_.ids) {
        for (int64_t i = at + kPanelLanes; i < min_of(n, at + 2 * kPanelLanes); ++i) {
          prefetch_row(block.rows[i], b_.dim * static_cast<int64_t>(sizeof(T)));
        }
      }
      pack_panel<Words>(block.rows + at, min_of(kPanelLanes, n - at), b_.dim, panel_);
      int64_t q = 0;
      for (; q + kTileRows <= count_; q += kTileRows) {
        score_tile<kTileRows>(q, kTileRows, block.s + at, out + at, out_stride);
      }
      for (; q < count_; q += kRestRows) {
        score_tile<kRestRows>(q, min_of(kRestRows, count_ - q), block.s + at, out + at, out_stride);
      }
    }
    return block;
  }

 private:
  // Queries [q, q + n) against the panel.
  template <int kRows>
  void score_tile(int64_t q, int64_t n, const float* s, float* out, int64_t out_stride) {
    const char* rows[kRows];
    for (int64_t a = 0; a < kRows; ++a) rows[a] = rows_[q + min_of(a, n - 1)];
    Vf sums[kRows][2];
    multiply_tile<Words, kRows>(rows, panel_, Words::words(b_.dim), sums);
    const Vf scale = splat(scale_), low = load(s), high = load(s + kLanes);
#pragma GCC unroll 12
    for (int a = 0; a < kRows; ++a) {
      if (a >= n) break;
      store(fma(scale, sums[a][0], low), out + (q + a) * out_stride);
      store(fma(scale, sums[a][1], high), out + (q + a) * out_stride + kLanes);
    }
  }

  const Behaviours& b_;
  float scale_;
  int64_t count_;
  BehaviourBlock<T>* block_;
  float* panel_;
  const char** rows_;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
