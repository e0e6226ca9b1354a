// SPDX-License-Identifier: Apache-2.0
// Dot products of a few queries with rows that are read once, from memory: a row of each stream at
// a time, against as many queries as their sums leave registers for. The next queries find these
// rows in the first-level cache. Each product is the sum that dot_streams makes, bit for bit.
#pragma once

#include "longclock/search/behaviours.h"
#include "longclock/search/row_streams-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Queries of a tile, whose sums with a row of each stream are in registers, at most.
inline constexpr int kFewTile = kLanes == 16 ? 5 : kLanes == 8 ? 3 : 2;

// So many queries are dealt to tiles of one size, with zeros for those that are not there.
constexpr int64_t few_tiles(int64_t count) { return (count + kFewTile - 1) / kFewTile; }
constexpr int64_t few_tile(int64_t count) {
  return (count + few_tiles(count) - 1) / few_tiles(count);
}
constexpr int64_t whole_tiles(int64_t count) { return few_tiles(count) * few_tile(count); }

// Tiles of kQueries queries, in words, each padded with zeros to a multiple of kLanes: of kVectors
// whole vectors, or of any length where that is 0.
template <class Words, class T, int kQueries, int kVectors>
class FewQueries {
 public:
  FewQueries(const float* queries, int64_t dim)
      : queries_(queries),
        stride_(kVectors > 0 ? kVectors * kLanes : round_up(Words::words(dim), kLanes)),
        dim_(dim),
        words_(Words::words(dim)),
        whole_(Words::whole_words(dim) / kLanes * kLanes) {}

  // parts[query * kStreamRows] = the lanes of the products of a tile with a row of each stream,
  // added up as sum_rows does. Meanwhile fetches the rows that are `ahead`, little by little: a
  // core that asks for many lines at once waits for them. Into the second-level cache: streams lie
  // a power of two apart, and so many lines of the same sets would drive each other out of the
  // first.
  LONGCLOCK_INLINE void multiply(int64_t tile, const T* const* rows, const T* const* ahead,
                                 Vf* parts) const {
    const float* const queries = queries_ + tile * kQueries * stride_;
    Vf sums[kQueries][kStreams] = {};
    const auto add = [&](int64_t at, const auto& words_of) __attribute__((always_inline)) {
      Vf words[kStreams];
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) {
        words[s] = words_of(rows[s]);
        __builtin_prefetch(ahead[s] + at * Words::kElements, 0, 2);
      }
#pragma GCC unroll 5
      for (int q = 0; q < kQueries; ++q) {
        const Vf query = load(queries + q * stride_ + at);
#pragma GCC unroll 4
        for (int s = 0; s < kStreams; ++s) {
          sums[q][s] = Words::multiply_add(query, words[s], sums[q][s]);
        }
      }
    };
    if constexpr (kVectors > 0) {
#pragma GCC unroll 4
      for (int64_t w = 0; w < kVectors * kLanes; w += kLanes) {
        add(w, [&](const T* from) { return Words::load_whole_words(from, w); });
      }
    } else {
      for (int64_t w = 0; w < whole_; w += kLanes) {
        add(w, [&](const T* from) { return Words::load_whole_words(from, w); });
      }
      if (whole_ < words_) {
        add(whole_, [&](const T* from) { return Words::load_words(from, whole_, dim_); });
      }
    }
#pragma GCC unroll 5
    for (int q = 0; q < kQueries; ++q) {
      parts[q * kStreamRows] = add_streams(sums[q][0], sums[q][1], sums[q][2], sums[q][3]);
    }
  }

 private:
  const float* queries_;
  int64_t stride_, dim_, words_, whole_;
};

// By value: what is in memory is read again after every row.
template <class T, int kQueries, class Queries, class Rows>
inline void multiply_few(Queries queries, Rows rows, int64_t count, int64_t n, float* out,
                         int64_t query_stride, int64_t out_stride) {
  const int64_t tiles = few_tiles(count);
  Vf parts[kFewQueries + kFewTile][kStreamRows];
  for (int64_t r = 0; r < n; r += kStreamRows) {
    for (int i = 0; i < kStreamRows; ++i) {
      const T *row[kStreams], *ahead[kStreams];
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) {
        ahead[s] = rows.ahead(s);
        row[s] = rows.take(s);
      }
      for (int64_t tile = 0; tile < tiles; ++tile) {
        queries.multiply(tile, row, ahead, &parts[tile * kQueries][i]);
      }
    }
    for (int64_t q = 0; q < count; ++q) {
      if constexpr (kStreamRows > 1) reduce_rows_step<kStreamRows / 2>(parts[q]);
      store_streams(parts[q][0], out + q * query_stride + r, out_stride);
    }
  }
}

// out[query * query_stride + s * out_stride + r] = query . row r of stream s, for two queries or
// more and r < n, a multiple of kStreamRows. queries: whole_tiles(count), in words, each padded
// with zeros to a multiple of kLanes.
template <class Words, class T, int kQueries = kFewTile, class Rows>
inline void dot_few(const float* queries, int64_t count, const Rows& rows, int64_t n, int64_t dim,
                    float* out, int64_t query_stride, int64_t out_stride) {
  if constexpr (kQueries > 2) {
    if (few_tile(count) < kQueries) {
      return dot_few<Words, T, kQueries - 1>(queries, count, rows, n, dim, out, query_stride,
                                             out_stride);
    }
  }
  const auto multiply = [&](const auto& tiles) {
    multiply_few<T, kQueries>(tiles, rows, count, n, out, query_stride, out_stride);
  };
  const int64_t words = Words::words(dim);
  if (words == Words::whole_words(dim)) {
    if (words == 2 * kLanes) return multiply(FewQueries<Words, T, kQueries, 2>(queries, dim));
    if (words == 4 * kLanes) return multiply(FewQueries<Words, T, kQueries, 4>(queries, dim));
  }
  multiply(FewQueries<Words, T, kQueries, 0>(queries, dim));
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
