// SPDX-License-Identifier: Apache-2.0
// Dot products of one query with rows that are read once, from memory.
#pragma once

#include "../common/rows-inl.h"
#include "tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Rows of several streams, one of each in turn: more of the memory's requests are in flight than
// when one stream is read, which stops at every page.
inline constexpr int kStreams = 4;
inline constexpr int kStreamRows = kLanes / kStreams;
// Rows of a stream that are prefetched, at most.
inline constexpr int64_t kRowsAhead = 16;

// How many rows ahead of a stream to prefetch, and whether into the first-level cache.
struct RowsAhead {
  int64_t rows;
  bool near;

  // Rows side by side, which the hardware prefetches as well: it stops at the end of a page. So few
  // bytes that those of all streams leave room in the first-level cache.
  static RowsAhead in_order(int64_t row_bytes) {
    constexpr int64_t kBytes = 2048;
    return {larger(1, smaller(kBytes / larger(1, row_bytes), kRowsAhead)), true};
  }
  // Rows gathered from a table are further away.
  static RowsAhead gathered() { return {8, false}; }
};

template <class T>
struct RowStream {
  const T* const* rows;
  float* out;
};

// A query of kVectors whole vectors, which stay in registers: the fewer instructions a row takes,
// the more rows the core has under way.
template <class Words, int kVectors>
class ShortQuery {
 public:
  explicit ShortQuery(const float* words) {
    for (int v = 0; v < kVectors; ++v) words_[v] = load(words + v * kLanes);
  }
  template <class T>
  Vf multiply(const T* row) const {
    Vf sum = {};
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sum = Words::multiply_add(words_[v], Words::load_whole_words(row, v * kLanes), sum);
    }
    return sum;
  }

 private:
  Vf words_[kVectors];
};

// A query of any length, padded with zeros to whole vectors.
template <class Words>
class LongQuery {
 public:
  LongQuery(const float* words, int64_t dim)
      : words_(words),
        dim_(dim),
        count_(Words::words(dim)),
        whole_(Words::whole_words(dim) / kLanes * kLanes) {}
  template <class T>
  Vf multiply(const T* row) const {
    Vf sum = {};
#pragma GCC unroll 4
    for (int64_t w = 0; w < whole_; w += kLanes) {
      sum = Words::multiply_add(load(words_ + w), Words::load_whole_words(row, w), sum);
    }
    if (whole_ < count_) {
      sum = Words::multiply_add(load(words_ + whole_), Words::load_words(row, whole_, dim_), sum);
    }
    return sum;
  }

 private:
  const float* words_;
  int64_t dim_, count_, whole_;
};

template <class Query, class T>
inline void multiply_streams(const Query& query, const RowStream<T>* streams, int64_t n,
                             RowsAhead ahead, int64_t row_bytes) {
  for (int64_t r = 0; r < n; r += kStreamRows) {
    Vf acc[kLanes];
    for (int64_t i = 0; i < kStreamRows; ++i) {
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) {
        const T* const* rows = streams[s].rows + r + i;
        if (ahead.near) {
          prefetch_row(rows[ahead.rows], row_bytes);
        } else {
          prefetch_far_row(rows[ahead.rows], row_bytes);
        }
        acc[s * kStreamRows + i] = query.multiply(rows[0]);
        end_of_row();
      }
    }
    const Vf sums = reduce_rows(acc);
    for (int s = 0; s < kStreams; ++s) {
      std::memcpy(streams[s].out + r, reinterpret_cast<const float*>(&sums) + s * kStreamRows,
                  kStreamRows * sizeof(float));
    }
  }
}

// out[r] = query . rows[r] for r < n in every stream, lane i the words i, i + kLanes, ... of the
// row. n is a multiple of kStreamRows, and ahead.rows more pointers can be read. query: in words,
// padded with zeros to a multiple of kLanes.
template <class Words, class T>
inline void dot_streams(const float* query, const RowStream<T>* streams, int64_t n, int64_t dim,
                        RowsAhead ahead) {
  const auto multiply = [&](const auto& q) {
    multiply_streams(q, streams, n, ahead, dim * static_cast<int64_t>(sizeof(T)));
  };
  const int64_t words = Words::words(dim);
  if (words == Words::whole_words(dim)) {
    if (words == 1 * kLanes) return multiply(ShortQuery<Words, 1>(query));
    if (words == 2 * kLanes) return multiply(ShortQuery<Words, 2>(query));
    if (words == 4 * kLanes) return multiply(ShortQuery<Words, 4>(query));
    if (words == 8 * kLanes) return multiply(ShortQuery<Words, 8>(query));
  }
  multiply(LongQuery<Words>(query, dim));
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
