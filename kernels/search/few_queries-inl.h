// SPDX-License-Identifier: Apache-2.0
// Dot products of a few queries with rows that are read once, from memory: a row of each stream at a
// time, against as many queries as their sums leave registers for. The next queries find these rows
// in the first-level cache. Each product is the sum that dot_streams makes, bit for bit.
#pragma once

#include "longclock/search/row_streams-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Queries of a group that are searched together in this way, at most.
inline constexpr int64_t kFewQueries = 15;

// Queries of a tile, whose sums with a row of each stream are in registers.
inline constexpr int kFewTile = kLanes == 16 ? 5 : kLanes == 8 ? 3 : 2;

template <class Words>
class FewQueries {
 public:
  // queries: [count], in words, padded with zeros to a multiple of kLanes, `stride` from one to the
  // next.
  FewQueries(const float* queries, int64_t stride, int64_t count, int64_t dim)
      : queries_(queries),
        stride_(stride),
        count_(count),
        tiles_((count + kFewTile - 1) / kFewTile),
        dim_(dim),
        words_(Words::words(dim)),
        whole_(Words::whole_words(dim) / kLanes * kLanes) {}

  int64_t count() const { return count_; }

  // parts[query * kStreamRows] = the lanes of the query's products with a row of each stream, added
  // up as sum_rows does. Queries are dealt evenly to tiles.
  template <class T>
  void multiply(const T* const* rows, Vf* parts) const {
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      const int64_t first = tile * count_ / tiles_;
      const float* const queries = queries_ + first * stride_;
      Vf* const to = parts + first * kStreamRows;
      switch ((tile + 1) * count_ / tiles_ - first) {
        case 1:
          multiply_some<1>(rows, queries, to);
          break;
        case 2:
          multiply_some<2>(rows, queries, to);
          break;
        case 3:
          multiply_some<min_of(3, kFewTile)>(rows, queries, to);
          break;
        case 4:
          multiply_some<min_of(4, kFewTile)>(rows, queries, to);
          break;
        default:
          multiply_some<kFewTile>(rows, queries, to);
      }
    }
  }

 private:
  template <int kQueries, class T>
  LONGCLOCK_INLINE void multiply_some(const T* const* rows, const float* queries, Vf* parts) const {
    Vf sums[kQueries][kStreams] = {};
    const T* row[kStreams];
    for (int s = 0; s < kStreams; ++s) row[s] = rows[s];
    const auto add = [&](int64_t at, const auto& words_of) __attribute__((always_inline)) {
      Vf words[kStreams];
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) words[s] = words_of(row[s]);
#pragma GCC unroll 5
      for (int q = 0; q < kQueries; ++q) {
        const Vf query = load(queries + q * stride_ + at);
#pragma GCC unroll 4
        for (int s = 0; s < kStreams; ++s) {
          sums[q][s] = Words::multiply_add(query, words[s], sums[q][s]);
        }
      }
    };
    for (int64_t w = 0; w < whole_; w += kLanes) {
      add(w, [&](const T* from) { return Words::load_whole_words(from, w); });
    }
    if (whole_ < words_) {
      add(whole_, [&](const T* from) { return Words::load_words(from, whole_, dim_); });
    }
#pragma GCC unroll 5
    for (int q = 0; q < kQueries; ++q) {
      parts[q * kStreamRows] =
          add_blocks<kStreamRows>(add_blocks<2 * kStreamRows>(sums[q][0], sums[q][2]),
                                  add_blocks<2 * kStreamRows>(sums[q][1], sums[q][3]));
    }
  }

  const float* queries_;
  int64_t stride_, count_, tiles_, dim_, words_, whole_;
};

// out[query * query_stride + s * out_stride + r] = query . row r of stream s, for r < n, a multiple
// of kStreamRows.
template <class T, class Words, class Rows>
inline void dot_few(const FewQueries<Words>& queries, Rows rows, int64_t n, int64_t row_bytes,
                    float* out, int64_t query_stride, int64_t out_stride) {
  Vf parts[kFewQueries][kStreamRows];
  for (int64_t r = 0; r < n; r += kStreamRows) {
    for (int i = 0; i < kStreamRows; ++i) {
      const T* row[kStreams];
      for (int s = 0; s < kStreams; ++s) {
        rows.prefetch(s, row_bytes);
        row[s] = rows.take(s);
      }
      queries.multiply(row, &parts[0][i]);
    }
    for (int64_t q = 0; q < queries.count(); ++q) {
      if constexpr (kStreamRows > 1) reduce_rows_step<kStreamRows / 2>(parts[q]);
      store_streams(parts[q][0], out + q * query_stride + r, out_stride);
    }
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
