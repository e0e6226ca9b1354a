// SPDX-License-Identifier: Apache-2.0
// Products of one query, or of a few, with many behaviours, as memory gives them. Used by clock_gsu
// and gsu_score.
#pragma once

#include "longclock/search/behaviour_block-inl.h"
#include "longclock/search/few_queries-inl.h"
#include "longclock/search/int8_rows-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// A stream's behaviours of a part: more than in other blocks, as the prefetcher has to start again
// after whatever is done between parts.
inline constexpr int64_t kStreamBlock = 2048;
template <class T>
using StreamBlock = BehaviourBlock<T, kStreamBlock>;

// Whether so many queries of a group are multiplied with its rows as memory gives them. Tells by
// what the group has, whatever part of it is at hand: more queries are a tile's, whose products are
// added up in another order.
inline bool are_few(const Group& g) { return g.query_end - g.query_begin <= kFewQueries; }

// Dot products of up to kFewQueries queries with the behaviours of a group, a part of kStreams
// blocks at a time. Memory-bound: every row is read once, straight from where it lies.
template <class T>
class SpanProducts {
  using Words = typename WordsOf<T>::Type;

 public:
  // queries: [count] floats, those of the row and of each feature padded with zeros to a multiple
  // of 16.
  SpanProducts(const Behaviours& b, const float* queries, int64_t query_stride, int64_t count,
               Scratch* scratch)
      : b_(b), count_(count), block_(block_of(count)), scratch_(scratch) {
    const auto take = [&](int64_t dim) {
      const int64_t words = Words::words(dim), padded = round_up(words, kLanes);
      float* const out = scratch->take<float>(count * padded);
      for (int64_t q = 0; q < count; ++q) {
        Words::from_floats(queries + q * query_stride, words, out + q * padded);
        for (int64_t i = words; i < padded; ++i) out[q * padded + i] = 0.0f;
      }
      queries += round_up(dim, 16);
      return out;
    };
    queries_ = take(b.dim);
    for (int f = 0; f < b.feature_count; ++f) feature_queries_[f] = take(b.features[f].dim);
    blocks_ = scratch->take<StreamBlock<T>>(kStreams);
    products_ = scratch->take<float>(count * product_stride());
    if (kAreScaled<T>) scales_ = scratch->take<float>(kStreamBlock);
    if (b.feature_count > 0) feature_products_ = scratch->take<float>(count * product_stride());
  }

  // From a query's products with a block to the next query's.
  int64_t product_stride() const { return kStreams * stride(); }

  // Of the part at hand: one of its kStreams blocks, and a query's products with it.
  StreamBlock<T>& block(int64_t stream) { return blocks_[stream]; }
  const float* of(int64_t query, int64_t stream) const {
    return products_ + query * product_stride() + stream * stride();
  }

  // Behaviours [begin, end) of the group in order, one block after another. Calls prepare(block)
  // before rows are read, then finish(block, products of the first query, begin of the block),
  // which may overwrite both. Neither has s; products of what is not valid mean nothing, and there
  // is room for kLanes more.
  template <class Prepare, class Finish>
  void for_each_block(const Group& g, int64_t begin, int64_t end, const Prepare& prepare,
                      const Finish& finish) {
    for (int64_t n = 0; begin < end; begin += n) {
      n = next_part(end - begin);
      const int64_t most = most_of(n);
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
        multiply_gathered(row_place(b_, g), g, begin, most, queries_, products_);
      }
      for (int f = 0; f < b_.feature_count; ++f) add_feature(f, g, begin, most);
      if (kAreScaled<T>) scale_products(g, begin, most);
      for (int64_t i = 0; i < kStreams; ++i) {
        if (!b_.ids) prefetch_start(g, begin + n, end, i);
        if (blocks_[i].n > 0) finish(blocks_[i], products_ + i * stride(), begin + i * most);
      }
    }
  }

 private:
  // The first rows of a stream of the part that begins at `begin`, which nothing else asks for
  // ahead: while the part before is finished, memory is idle.
  void prefetch_start(const Group& g, int64_t begin, int64_t end, int64_t stream) const {
    const int64_t n = next_part(end - begin), most = most_of(n);
    const int64_t row_bytes = b_.key_row_stride * static_cast<int64_t>(sizeof(T));
    const int64_t rows = min_of(bytes_ahead() / max_of(1, row_bytes), n - stream * most);
    if (rows <= 0) return;
    prefetch_far_row(
        static_cast<const T*>(b_.keys) + g.key_offset + (begin + stream * most) * b_.key_row_stride,
        rows * row_bytes);
  }
  int64_t bytes_ahead() const { return count_ == 1 ? kNearAhead : kFarAhead; }
  // Behaviours of the longest block of a part of n.
  static int64_t most_of(int64_t n) { return round_up((n + kStreams - 1) / kStreams, kStreamRows); }

  // Blocks as long as leave the products of all queries in the cache, and streams so far apart that
  // no page is of two.
  static int64_t block_of(int64_t count) {
    return count <= 1 ? kStreamBlock : count <= 3 ? kStreamBlock / 2 : kStreamBlock / 4;
  }
  // Between the products of two streams.
  int64_t stride() const { return score_stride(block_); }
  // Products of a small table stay in the first-level cache.
  static constexpr int64_t kMaxSmall = 4096;

  // How many of the behaviours that are left the next part takes. Rows side by side fill all
  // streams alike and leave the last few to a part of their own, unless all are few.
  int64_t next_part(int64_t left) const {
    const int64_t n = min_of(kStreams * block_, left);
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
    const StridedRows<T> rows(first, b_.key_row_stride, row_bytes, bytes_ahead());
    multiply(queries_, rows, n, b_.dim, products_, product_stride(), stride());
  }

  template <class Rows>
  void multiply(const float* queries, const Rows& rows, int64_t n, int64_t dim, float* products,
                int64_t query_stride, int64_t out_stride) const {
    if (count_ == 1) return dot_streams<Words, T>(queries, rows, n, dim, products, out_stride);
    dot_few<Words, T>(queries, count_, rows, n, dim, products, query_stride, out_stride);
  }

  // By the scales of a part's rows.
  void scale_products(const Group& g, int64_t begin, int64_t n) {
    for (int64_t i = 0; i < kStreams; ++i) {
      if (!has_rows(blocks_[i])) continue;
      read_scales(b_, g, begin + i * n, blocks_[i].n, blocks_[i], scales_);
      for (int64_t q = 0; q < count_; ++q) {
        float* products = products_ + q * product_stride() + i * stride();
        for (int64_t j = 0; j < blocks_[i].n; ++j) products[j] *= scales_[j];
      }
    }
  }

  // Adds the products of a part's rows of a feature.
  void add_feature(int f, const Group& g, int64_t begin, int64_t n) {
    const Feature& feature = b_.features[f];
    if (is_small(feature, g.length, kMaxSmall)) return add_small(f, g, begin, n);
    const RowPlace place = feature_place(feature, g);
    multiply_gathered(place, g, begin, n, feature_queries_[f], feature_products_);
    for (int64_t i = 0; i < kStreams; ++i) {
      if (!has_rows(blocks_[i])) continue;
      for (int64_t q = 0; q < count_; ++q) {
        float* products = products_ + q * product_stride() + i * stride();
        const float* more = feature_products_ + q * product_stride() + i * stride();
        for (int64_t j = 0; j < blocks_[i].n; ++j) products[j] += more[j];
      }
    }
  }

  // The same for a small table.
  void add_small(int f, const Group& g, int64_t begin, int64_t n) {
    const Feature& feature = b_.features[f];
    if (small_products_[f] == nullptr) small_products_[f] = multiply_table(f);
    const int64_t rows = small_rows(feature);
    for (int64_t i = 0; i < kStreams; ++i) {
      const StreamBlock<T>& block = blocks_[i];
      if (!has_rows(block)) continue;
      with_ints(feature.ids, g.position + begin + i * n, [&](auto* ids) {
        for (int64_t q = 0; q < count_; ++q) {
          float* products = products_ + q * product_stride() + i * stride();
          const float* of_row = small_products_[f] + q * rows;
          for (int64_t j = 0; j < block.n; ++j) {
            if (block.all_valid || block.valid[j] != 0) products[j] += of_row[ids[j]];
          }
        }
      });
    }
  }

  static int64_t small_rows(const Feature& f) { return round_up(f.table_rows, kLanes); }

  // The products of all rows of a table, small_rows() a query: kStreams of them at a time.
  const float* multiply_table(int f) {
    const Feature& feature = b_.features[f];
    const int64_t rows = small_rows(feature), each = rows / kStreams;
    float* out = scratch_->template take<float>(count_ * rows);
    const T* some = static_cast<const T*>(feature.keys);
    const T** all = scratch_->template take<const T*>(rows + GatheredRows<T>::kAhead);
    for (int64_t i = 0; i < rows + GatheredRows<T>::kAhead; ++i) {
      all[i] = some + (i < feature.table_rows ? i : 0) * feature.row_stride;
    }
    const T* const* first[kStreams];
    for (int64_t i = 0; i < kStreams; ++i) first[i] = all + i * each;
    multiply(feature_queries_[f], GatheredRows<T>(first), each, feature.dim, out, rows, each);
    return out;
  }

  // A part whose longest block has n behaviours, up to a multiple of kStreamRows.
  void multiply_gathered(const RowPlace& place, const Group& g, int64_t begin, int64_t n,
                         const float* queries, float* products) {
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
    multiply(queries, GatheredRows<T>(first), n, place.dim, products, product_stride(), stride());
  }

  static bool has_rows(const StreamBlock<T>& block) { return block.n > 0 && block.any_valid; }

  const Behaviours& b_;
  int64_t count_, block_;
  float* queries_;  // in words
  Scratch* scratch_;
  float* feature_queries_[kMaxFeatures];
  const float* small_products_[kMaxFeatures] = {};  // of a table's rows, once they are needed
  StreamBlock<T>* blocks_;
  float* products_;
  float* feature_products_ = nullptr;
  float* scales_ = nullptr;  // of a block's rows
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
