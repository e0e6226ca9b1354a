// SPDX-License-Identifier: Apache-2.0
// Products of one query with many behaviours, as memory gives them. Used by clock_gsu and
// gsu_score.
#pragma once

#include "longclock/search/behaviour_block-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

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
    if (is_small(feature, g.length, kMaxSmall)) return add_small(f, g, begin, n);
    const RowPlace place = feature_place(feature, g);
    multiply_gathered(place, g, begin, n, feature_queries_[f], feature_products_);
    for (int64_t i = 0; i < kStreams; ++i) {
      if (!has_rows(blocks_[i])) continue;
      float* products = products_ + i * kStride;
      const float* more = feature_products_ + i * kStride;
      for (int64_t j = 0; j < blocks_[i].n; ++j) products[j] += more[j];
    }
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

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
