// SPDX-License-Identifier: Apache-2.0
// A block of behaviours made ready for scoring, and its scores. Used by gsu_score, clock_gsu and
// esu_attention.
#pragma once

#include "longclock/common/ints-inl.h"
#include "longclock/common/rows-inl.h"
#include "longclock/common/scratch.h"
#include "longclock/search/behaviours.h"
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
  // query: floats, those of the row and of each feature padded with zeros to a multiple of 16.
  SpanProducts(const Behaviours& b, const float* query, Scratch* scratch)
      : b_(b), scratch_(scratch) {
    const auto take = [&](int64_t dim) {
      const int64_t words = Words::words(dim), padded = round_up(words, kLanes);
      float* const out = scratch->take<float>(padded);
      Words::from_floats(query, words, out);
      for (int64_t i = words; i < padded; ++i) out[i] = 0.0f;
      query += round_up(dim, 16);
      return out;
    };
    query_ = take(b.dim);
    for (int f = 0; f < b.feature_count; ++f) feature_queries_[f] = take(b.features[f].dim);
    blocks_ = scratch->take<StreamBlock<T>>(kStreams);
    products_ = scratch->take<float>(kStreams * kStride);
    if (b.feature_count > 0) feature_products_ = scratch->take<float>(kStreams * kStride);
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
        multiply_gathered(row_place(b_, g), g, begin, most, query_, products_);
      }
      for (int f = 0; f < b_.feature_count; ++f) add_feature(f, g, begin, most);
      for (int64_t i = 0; i < kStreams; ++i) {
        if (blocks_[i].n > 0) finish(blocks_[i], products_ + i * kStride, begin + i * most);
      }
    }
  }

 private:
  static constexpr int64_t kStride = score_stride(kStreamBlock);
  // Products of a small table stay in the first-level cache.
  static constexpr int64_t kMaxSmall = 4096;

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
    const int64_t row_bytes = b_.dim * static_cast<int64_t>(sizeof(T));
    dot_streams<Words, T>(query_, StridedRows<T>(first, b_.key_row_stride, row_bytes), n, b_.dim,
                          products_, kStride);
  }

  // Adds the products of a part's rows of a feature.
  void add_feature(int f, const Group& g, int64_t begin, int64_t n) {
    const Feature& feature = b_.features[f];
    if (is_small(feature, g)) return add_small(f, g, begin, n);
    const RowPlace place = feature_place(feature, g);
    multiply_gathered(place, g, begin, n, feature_queries_[f], feature_products_);
    for (int64_t i = 0; i < kStreams; ++i) {
      if (!has_rows(blocks_[i])) continue;
      float* products = products_ + i * kStride;
      const float* more = feature_products_ + i * kStride;
      for (int64_t j = 0; j < blocks_[i].n; ++j) products[j] += more[j];
    }
  }

  // A table so small that a product with each of its rows, looked up, is less work than one with
  // each behaviour's. Tells by what the group has, whatever part of it is at hand.
  static bool is_small(const Feature& f, const Group& g) {
    return f.ids && f.table_rows <= kMaxSmall && 2 * f.table_rows <= g.length;
  }

  // The same for a small table.
  void add_small(int f, const Group& g, int64_t begin, int64_t n) {
    const Feature& feature = b_.features[f];
    if (small_products_[f] == nullptr) small_products_[f] = multiply_table(f);
    const float* of_row = small_products_[f];
    for (int64_t i = 0; i < kStreams; ++i) {
      const StreamBlock<T>& block = blocks_[i];
      if (!has_rows(block)) continue;
      float* products = products_ + i * kStride;
      with_ints(feature.ids, g.position + begin + i * n, [&](auto* ids) {
        for (int64_t j = 0; j < block.n; ++j) {
          if (block.all_valid || block.valid[j] != 0) products[j] += of_row[ids[j]];
        }
      });
    }
  }

  // The products of all rows of a table: kStreams of them at a time.
  const float* multiply_table(int f) {
    const Feature& feature = b_.features[f];
    const int64_t rows = round_up(feature.table_rows, kLanes), each = rows / kStreams;
    float* out = scratch_->template take<float>(rows);
    const T* some = static_cast<const T*>(feature.keys);
    const T** all = scratch_->template take<const T*>(rows + GatheredRows<T>::kAhead);
    for (int64_t i = 0; i < rows + GatheredRows<T>::kAhead; ++i) {
      all[i] = some + (i < feature.table_rows ? i : 0) * feature.row_stride;
    }
    const T* const* first[kStreams];
    for (int64_t i = 0; i < kStreams; ++i) first[i] = all + i * each;
    dot_streams<Words, T>(feature_queries_[f], GatheredRows<T>(first), each, feature.dim, out,
                          each);
    return out;
  }

  // A part whose longest block has n behaviours, up to a multiple of kStreamRows.
  void multiply_gathered(const RowPlace& place, const Group& g, int64_t begin, int64_t n,
                         const float* query, float* products) {
    constexpr int64_t kAhead = GatheredRows<T>::kAhead;
    const int64_t row_bytes = place.dim * static_cast<int64_t>(sizeof(T));
    const T* some = nullptr;  // which rows without elements may be as well
    bool any = false;
    for (int64_t i = 0; i < kStreams; ++i) {
      if (!has_rows(blocks_[i])) continue;
      find_rows(place, g, begin + i * n, blocks_[i].n, blocks_[i], blocks_[i].rows);
      some = blocks_[i].rows[0];
      any = true;
    }
    if (!any) return;
    const T* const* first[kStreams];
    for (int64_t i = 0; i < kStreams; ++i) {
      // A shorter block goes on with any row.
      StreamBlock<T>& block = blocks_[i];
      for (int64_t j = has_rows(block) ? block.n : 0; j < n + kAhead; ++j) block.rows[j] = some;
      for (int64_t j = 0; j < kAhead; ++j) prefetch_far_row(block.rows[j], row_bytes);
      first[i] = block.rows;
    }
    dot_streams<Words, T>(query, GatheredRows<T>(first), n, place.dim, products, kStride);
  }

  static bool has_rows(const StreamBlock<T>& block) { return block.n > 0 && block.any_valid; }

  const Behaviours& b_;
  float* query_;  // in words
  Scratch* scratch_;
  float* feature_queries_[kMaxFeatures];
  const float* small_products_[kMaxFeatures] = {};  // of a table's rows, once they are needed
  StreamBlock<T>* blocks_;
  float* products_;
  float* feature_products_ = nullptr;
};

// Scores of up to kTaskQueries queries against blocks of behaviours, which they share: panels of
// keys.
template <class T>
class BlockScorer {
  using Words = typename WordsOf<T>::Type;

 public:
  // queries: [count], each as RowWords takes it.
  BlockScorer(const Behaviours& b, float scale, const float* queries, int64_t query_stride,
              int64_t count, Scratch* scratch)
      : b_(b), scale_(scale), count_(count) {
    block_ = scratch->take<BehaviourBlock<T>>(1);
    const RowWords<Words> row_words(b);
    words_ = row_words.count();
    panel_ = scratch->take<float>(kPanelLanes * words_);
    rows_ = scratch->take<const char*>(count);
    float* row = scratch->take<float>(count * words_);
    for (int64_t i = 0; i < count; ++i, row += words_) {
      row_words.from_query(queries + i * query_stride, row);
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
    for (int64_t at = 0; at < n; at += kPanelLanes) {
      if (b_.ids) {
        for (int64_t i = at + kPanelLanes; i < min_of(n, at + 2 * kPanelLanes); ++i) {
          prefetch_row(block.rows[i], b_.dim * static_cast<int64_t>(sizeof(T)));
        }
      }
      pack(block, at, min_of(kPanelLanes, n - at));
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
  // Behaviours [at, at + n) of the block.
  void pack(const BehaviourBlock<T>& block, int64_t at, int64_t n) {
    pack_panel<Words>(block.rows + at, n, b_.dim, panel_);
    float* panel = panel_ + Words::words(b_.dim) * kPanelLanes;
    for (int f = 0; f < b_.feature_count; ++f) {
      const int64_t dim = b_.features[f].dim;
      pack_panel<Words>(feature_rows_[f] + at, n, dim, panel);
      panel += Words::words(dim) * kPanelLanes;
    }
  }

  // Queries [q, q + n) against the panel.
  template <int kRows>
  void score_tile(int64_t q, int64_t n, const float* s, float* out, int64_t out_stride) {
    const char* rows[kRows];
    for (int64_t a = 0; a < kRows; ++a) rows[a] = rows_[q + min_of(a, n - 1)];
    Vf sums[kRows][2];
    multiply_tile<Words, kRows>(rows, panel_, words_, sums);
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
  int64_t count_, words_;
  BehaviourBlock<T>* block_;
  float* panel_;
  const char** rows_;
  const T** feature_rows_[kMaxFeatures];
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
