// SPDX-License-Identifier: Apache-2.0
// A block of behaviours made ready for scoring, and its scores. Used by gsu_score, clock_gsu and
// esu_attention.
#pragma once

#include "longclock/common/ints-inl.h"
#include "longclock/common/rows-inl.h"
#include "longclock/common/scratch.h"
#include "longclock/search/behaviours.h"
#include "longclock/search/int8_rows-inl.h"
#include "longclock/search/row_streams-inl.h"
#include "longclock/search/row_words-inl.h"
#include "longclock/search/tile-inl.h"
#include "longclock/time/clock-inl.h"
#include "longclock/time/time_term-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int64_t kBehaviourBlock = kTimeBlock;
// Between rows of scores of a block: not a power of two of cache lines, so that a column of them
// spreads over all sets of the cache.
constexpr int64_t score_stride(int64_t block) { return block + 16; }
inline constexpr int64_t kScoreStride = score_stride(kBehaviourBlock);

// s = what a table has at the deltas; or s += it.
inline void look_up(const TimeLookup& lookup, const int32_t* delta, int64_t n, bool add, float* s) {
  const float* values = lookup.table->s;
  const auto each = [&](const auto& place) {
    if (add) {
      for (int64_t i = 0; i < n; ++i) s[i] += values[place(delta[i])];
    } else {
      for (int64_t i = 0; i < n; ++i) s[i] = values[place(delta[i])];
    }
  };
  if (lookup.table->elapsed) {
    each([](int32_t seconds) { return elapsed_place(seconds); });
  } else {
    each([](int32_t seconds) { return seconds; });
  }
}

template <class T, int64_t kSize = kBehaviourBlock>
struct BehaviourBlock {
  int64_t n;
  bool all_valid;                    // else `valid` says which are
  uint8_t valid[kSize];              // 0: it never counts
  int32_t delta[kMaxClocks][kSize];  // seconds, as each clock sees it; 0 where not valid
  // Of one that is not valid: some valid row; none where none is. Room to read ahead.
  const T* rows[kSize + GatheredRows<T>::kAhead];
  bool any_valid;
  TimeFeatureBlock features;
  alignas(64) float s[kSize];
};

// Which behaviours begin, begin + step, ... of the group are valid, n of them, and how far from now
// on each clock.
template <class T, int64_t kSize>
inline void read_times(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                       BehaviourBlock<T, kSize>* block, int64_t step = 1) {
  const int64_t at = g.position + begin;
  block->n = n;
  block->all_valid = b.mask == nullptr && !b.exclude_future;
  block->any_valid = true;
  with_ints(b.key_time, at, [&](auto* t) {
    for (int c = 0; c < b.time.clocks; ++c) {
      if (b.time.clock[c].unread) continue;
      clock_deltas(t, step, &g.query_time, 0, n, b.time.clock[c].period, block->delta[c]);
    }
  });
  if (block->all_valid) return;
  for (int64_t i = 0; i < n; ++i) block->valid[i] = b.mask == nullptr || b.mask[at + i * step] != 0;
  if (b.exclude_future) {
    with_ints(b.key_time, at, [&](auto* t) {
      for (int64_t i = 0; i < n; ++i) block->valid[i] &= t[i * step] < g.query_time;
    });
  }
  int64_t valid = 0;
  for (int64_t i = 0; i < n; ++i) valid += block->valid[i];
  for (int c = 0; c < b.time.clocks; ++c) {
    for (int64_t i = 0; i < n; ++i) {
      if (block->valid[i] == 0) block->delta[c][i] = 0;
    }
  }
  block->all_valid = valid == n;
  block->any_valid = valid > 0;
}

// Where rows begin: the behaviours' own, whose first in a group lies at `offset`, or a feature's.
struct RowPlace {
  const void* keys;
  int64_t row_stride, dim, offset;
  IntArray ids;
};
inline RowPlace row_place(const Behaviours& b, const Group& g) {
  return {b.keys, b.key_row_stride, b.dim, g.key_offset, b.ids};
}
inline RowPlace feature_place(const Feature& f, const Group& g) {
  return {f.keys, f.row_stride, f.dim, g.position * f.row_stride, f.ids};
}

// The rows of behaviours begin, begin + step, ... of the group, n of them, into `rows`.
template <class T, int64_t kSize>
inline void find_rows(const RowPlace& place, const Group& g, int64_t begin, int64_t n,
                      const BehaviourBlock<T, kSize>& block, const T** rows, int64_t step = 1) {
  const T* keys = static_cast<const T*>(place.keys);
  if (!place.ids) {
    const T* first = keys + place.offset + begin * place.row_stride;
    for (int64_t i = 0; i < n; ++i) rows[i] = first + i * step * place.row_stride;
    return;
  }
  const T* some = nullptr;
  with_ints(place.ids, g.position + begin, [&](auto* ids) {
    for (int64_t i = 0; i < n; ++i) {
      const bool valid = block.all_valid || block.valid[i] != 0;
      rows[i] = valid ? keys + ids[i * step] * place.row_stride : nullptr;
      if (valid) some = rows[i];
    }
  });
  if (block.all_valid) return;
  for (int64_t i = 0; i < n; ++i) {
    if (rows[i] == nullptr) rows[i] = some;
  }
}
template <class T, int64_t kSize>
inline void find_rows(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                      BehaviourBlock<T, kSize>* block, int64_t step = 1) {
  find_rows(row_place(b, g), g, begin, n, *block, block->rows, step);
}

// s of behaviours [begin, end) of the block. Not inlined into its large callers, where GCC has no
// registers left for its loops.
template <class T, int64_t kSize>
__attribute__((noinline)) void read_s(const Behaviours& b, int64_t begin, int64_t end,
                                      BehaviourBlock<T, kSize>* block) {
  for (int i = 0; i < b.time.lookups; ++i) {
    look_up(b.time.lookup[i], block->delta[b.time.lookup[i].clock] + begin, end - begin, i > 0,
            block->s + begin);
  }
  if (b.time.lookups > 0) return;
  alignas(64) float more[kTimeBlock];
  for (int64_t at = begin; at < end; at += kTimeBlock) {
    const int64_t n = min_of(kTimeBlock, end - at);
    for (int c = 0; c < b.time.clocks; ++c) {
      const TimeMlp& mlp = b.time.clock[c].mlp;
      time_features(block->delta[c] + at, n, mlp.unit, mlp.elapsed, &block->features);
      time_similarity(mlp, block->features, n, c == 0 ? block->s + at : more);
      for (int64_t i = 0; c > 0 && i < n; ++i) block->s[at + i] += more[i];
    }
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

// Scores of up to kTaskQueries queries against blocks of behaviours, which they share: panels of
// keys.
template <class T>
class BlockScorer {
  using Words = typename WordsOf<T>::Type;

 public:
  // queries: [count], each as RowWords takes it. `length`: behaviours of the group.
  BlockScorer(const Behaviours& b, float scale, const float* queries, int64_t query_stride,
              int64_t count, int64_t length, Scratch* scratch)
      : b_(b), words_(b, length), count_(count) {
    block_ = scratch->take<BehaviourBlock<T>>(1);
    panel_ = scratch->take<float>(kPanelLanes * words_.count());
    rows_ = scratch->take<const char*>(count);
    scales_ = scratch->take<float>(count);
    if (kAreScaled<T>) key_scales_ = scratch->take<float>(kBehaviourBlock + kPanelLanes);
    float* row = scratch->take<float>(count * words_.count());
    for (int64_t i = 0; i < count; ++i, row += words_.count()) {
      words_.from_query(queries + i * query_stride, row);
      scales_[i] = query_scale<T>(b, queries + i * query_stride, scale);
      rows_[i] = reinterpret_cast<const char*>(row);
    }
    for (int f = 0; f < b.feature_count; ++f) {
      feature_rows_[f] = scratch->take<const T*>(kBehaviourBlock);
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
    for (int f = 0; f < b_.feature_count; ++f) {
      find_rows(feature_place(b_.features[f], g), g, begin, n, block, feature_rows_[f]);
    }
    if constexpr (kAreScaled<T>) {
      read_scales(b_, g, begin, n, block, key_scales_);
      for (int64_t i = n; i < round_up(n, kPanelLanes); ++i) key_scales_[i] = 0.0f;
    }
    for (int64_t at = 0; at < n; at += kPanelLanes) {
      if (b_.ids) {
        for (int64_t i = at + kPanelLanes; i < min_of(n, at + 2 * kPanelLanes); ++i) {
          prefetch_row(block.rows[i], b_.dim * static_cast<int64_t>(sizeof(T)));
        }
      }
      pack(block, at, min_of(kPanelLanes, n - at));
      int64_t q = 0;
      for (; q + kTileRows <= count_; q += kTileRows) {
        score_tile<kTileRows>(q, kTileRows, block.s, at, out, out_stride);
      }
      for (; q < count_; q += kRestRows) {
        score_tile<kRestRows>(q, min_of(kRestRows, count_ - q), block.s, at, out, out_stride);
      }
    }
    return block;
  }

 private:
  // Behaviours [at, at + n) of the block.
  void pack(const BehaviourBlock<T>& block, int64_t at, int64_t n) {
    float* looked_up = panel_;
    float* joined = panel_ + words_.joined_begin() * kPanelLanes;
    pack_panel<Words>(block.rows + at, n, b_.dim, joined);
    joined += Words::words(b_.dim) * kPanelLanes;
    for (int f = 0; f < b_.feature_count; ++f) {
      const int64_t dim = b_.features[f].dim;
      float*& panel = words_.is_looked_up(f) ? looked_up : joined;
      pack_panel<Words>(feature_rows_[f] + at, n, dim, panel);
      panel += Words::words(dim) * kPanelLanes;
    }
  }

  // Queries [q, q + n) against the panel, which begins `at` in the block.
  template <int kRows>
  void score_tile(int64_t q, int64_t n, const float* s, int64_t at, float* out,
                  int64_t out_stride) {
    const char* rows[kRows];
    for (int64_t a = 0; a < kRows; ++a) rows[a] = rows_[q + min_of(a, n - 1)];
    Vf sums[kRows][2];
    multiply<kRows>(rows, sums);
    const Vf low = load(s + at), high = load(s + at + kLanes);
#pragma GCC unroll 12
    for (int a = 0; a < kRows; ++a) {
      if (a >= n) break;
      const Vf scale = splat(scales_[q + a]);
      float* to = out + (q + a) * out_stride + at;
      store(fma(scale, product(sums[a][0], at), low), to);
      store(fma(scale, product(sums[a][1], at + kLanes), high), to + kLanes);
    }
  }

  // Products of sums with the behaviours from `at` on.
  Vf product(Vf sums, int64_t at) const {
    if constexpr (kAreScaled<T>) return sums * load(key_scales_ + at);
    return sums;
  }

  // The sums that begin with what is looked up elsewhere.
  template <int kRows>
  LONGCLOCK_INLINE void multiply(const char** rows, Vf (*sums)[2]) const {
    // Of one feature and the rest: one chain.
    if (words_.looked_ups() <= 1) {
      return multiply_tile<Words, kRows>(rows, panel_, words_.count(), sums);
    }
    multiply_tile<Words, kRows>(rows, panel_, words_.looked_up(0).count, sums);
    for (int i = 1; i < words_.looked_ups(); ++i) {
      const auto [_, begin, count] = words_.looked_up(i);
      const char* columns[kRows];
      for (int a = 0; a < kRows; ++a) columns[a] = rows[a] + 4 * begin;
      Vf more[kRows][2];
      multiply_tile<Words, kRows>(columns, panel_ + begin * kPanelLanes, count, more);
      for (int a = 0; a < kRows; ++a) {
        sums[a][0] += more[a][0];
        sums[a][1] += more[a][1];
      }
    }
    for (int a = 0; a < kRows; ++a) rows[a] += 4 * words_.joined_begin();
    add_tile<Words, kRows>(rows, panel_ + words_.joined_begin() * kPanelLanes, words_.joined(),
                           sums);
  }

  const Behaviours& b_;
  RowWords<Words> words_;
  int64_t count_;
  BehaviourBlock<T>* block_;
  float* panel_;
  float* scales_;                // of the queries
  float* key_scales_ = nullptr;  // of the block's rows
  const char** rows_;
  const T** feature_rows_[kMaxFeatures];
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
