// SPDX-License-Identifier: Apache-2.0
// Dot products of a few queries with rows that are read once, from memory: a row of each stream at
// a time, as many words of it as registers hold, against one query after another. While a query's
// lanes are added up, the next one is multiplied, so that both go on at once. Each product is the
// sum that dot_streams makes, bit for bit.
#pragma once

#include "longclock/search/behaviours.h"
#include "longclock/search/row_streams-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Vectors of a row of each stream that are held in registers.
inline constexpr int kHeldVectors = kLanes == 16 ? 4 : 2;

// Queries in words, each padded with zeros to a multiple of kLanes: of kVectors whole vectors, or
// of any length where that is 0.
template <class Words, class T, int kVectors>
class FewQueries {
 public:
  FewQueries(const float* queries, int64_t count, int64_t dim)
      : queries_(queries),
        count_(count),
        dim_(dim),
        words_(Words::words(dim)),
        whole_(Words::whole_words(dim) / kLanes * kLanes) {}

  int64_t count() const { return count_; }

  // Calls take(query, the lanes of its products with a row of each stream, added up as sum_rows
  // does). Meanwhile fetches the rows that are `ahead`; where they are scattered, a line a query: a
  // core that asks for many at once waits for them, and what it waits for next are these rows. Into
  // the second-level cache: streams lie a power of two apart, and so many lines of the same sets
  // would drive each other out of the first.
  template <bool kScattered, class Take>
  LONGCLOCK_INLINE void multiply(const T* const* rows, const T* const* ahead,
                                 const Take& take) const {
    Vf sums[kFewQueries][kStreams];
    if constexpr (kVectors > 0) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v += kHeldVectors) {
        constexpr int kHeld = kVectors < kHeldVectors ? kVectors : kHeldVectors;
        static_assert(kVectors % kHeld == 0);
        add<kHeld, kScattered>(v * kLanes, rows, ahead, v == 0, v + kHeld == kVectors, sums, take);
      }
      return;
    }
    for (int64_t q = 0; words_ == 0 && q < count_; ++q) take(q, Vf{});
    for (int64_t w = 0; w < words_;) {
      const bool first = w == 0;
      if (w + kHeldVectors * kLanes <= whole_) {
        constexpr int64_t kStep = kHeldVectors * kLanes;
        add<kHeldVectors, kScattered>(w, rows, ahead, first, w + kStep >= words_, sums, take);
        w += kStep;
      } else {
        add<1, kScattered>(w, rows, ahead, first, w + kLanes >= words_, sums, take);
        w += kLanes;
      }
    }
  }

 private:
  static constexpr int64_t kLine = 64;  // bytes
  static constexpr int64_t kWordBytes = Words::kElements * static_cast<int64_t>(sizeof(T));
  static constexpr int64_t kVectorBytes = kLanes * kWordBytes;

  // kHeld vectors of each row, from word `at` on.
  template <int kHeld, bool kScattered, class Take>
  LONGCLOCK_INLINE void add(int64_t at, const T* const* rows, const T* const* ahead, bool first,
                            bool last, Vf (*sums)[kStreams], const Take& take) const {
    Vf words[kHeld][kStreams];
#pragma GCC unroll 4
    for (int v = 0; v < kHeld; ++v) {
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) {
        words[v][s] = kVectors > 0 || kHeld > 1 ? Words::load_whole_words(rows[s], at + v * kLanes)
                                                : Words::load_words(rows[s], at + v * kLanes, dim_);
      }
    }
    // Lines of a row that these vectors begin.
    constexpr int64_t kBytes = kHeld * kVectorBytes;
    const int64_t lines = kBytes % kLine == 0 ? kBytes / kLine : at * kWordBytes % kLine == 0;
    const auto fetch = [&](int64_t line) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) {
        __builtin_prefetch(ahead[s] + (at + line * kLine / kWordBytes) * Words::kElements, 0, 2);
      }
    };
    for (int64_t line = 0; !kScattered && line < lines; ++line) fetch(line);
    const int64_t stride = kVectors > 0 ? kVectors * kLanes : round_up(words_, kLanes);
    for (int64_t q = 0; q < count_; ++q) {
      Vf acc[kStreams] = {};
#pragma GCC unroll 4
      for (int s = 0; !first && s < kStreams; ++s) acc[s] = sums[q][s];
#pragma GCC unroll 4
      for (int v = 0; v < kHeld; ++v) {
        const Vf query = load(queries_ + q * stride + at + v * kLanes);
#pragma GCC unroll 4
        for (int s = 0; s < kStreams; ++s) acc[s] = Words::multiply_add(query, words[v][s], acc[s]);
      }
      if (kScattered && q < lines) fetch(q);
      if (last) {
        take(q, add_streams(acc[0], acc[1], acc[2], acc[3]));
      } else {
#pragma GCC unroll 4
        for (int s = 0; s < kStreams; ++s) sums[q][s] = acc[s];
      }
    }
    for (int64_t line = count_; kScattered && line < lines; ++line) fetch(line);
  }

  const float* queries_;
  int64_t count_, dim_, words_, whole_;
};

// By value: what is in memory is read again after every row.
template <class T, class Queries, class Rows>
inline void multiply_few(Queries queries, Rows rows, int64_t n, float* out, int64_t query_stride,
                         int64_t out_stride) {
  Vf parts[kFewQueries][kStreamRows];
  for (int64_t r = 0; r < n; r += kStreamRows) {
#pragma GCC unroll 1  // else once a row of a stream, which makes four times the code
    for (int i = 0; i < kStreamRows; ++i) {
      const T *row[kStreams], *ahead[kStreams];
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) {
        ahead[s] = rows.ahead(s);
        row[s] = rows.take(s);
      }
      queries.template multiply<Rows::kScattered>(
          row, ahead, [&](int64_t q, Vf lanes) __attribute__((always_inline)) {
            if (i + 1 < kStreamRows) {
              parts[q][i] = lanes;
              return;
            }
            Vf sums[kStreamRows];
#pragma GCC unroll 4
            for (int before = 0; before + 1 < kStreamRows; ++before)
              sums[before] = parts[q][before];
            sums[kStreamRows - 1] = lanes;
            if constexpr (kStreamRows > 1) reduce_rows_step<kStreamRows / 2>(sums);
            store_streams(sums[0], out + q * query_stride + r, out_stride);
          });
    }
  }
}

// out[query * query_stride + s * out_stride + r] = query . row r of stream s, for r < n, a multiple
// of kStreamRows. queries: `count` of them, in words, each padded with zeros to a multiple of
// kLanes.
template <class Words, class T, class Rows>
inline void dot_few(const float* queries, int64_t count, const Rows& rows, int64_t n, int64_t dim,
                    float* out, int64_t query_stride, int64_t out_stride) {
  const auto multiply = [&](const auto& few) {
    multiply_few<T>(few, rows, n, out, query_stride, out_stride);
  };
  const int64_t words = Words::words(dim);
  if (words == Words::whole_words(dim)) {
    if (words == 2 * kLanes) return multiply(FewQueries<Words, T, 2>(queries, count, dim));
    if (words == 4 * kLanes) return multiply(FewQueries<Words, T, 4>(queries, count, dim));
    if (words == 8 * kLanes) return multiply(FewQueries<Words, T, 8>(queries, count, dim));
  }
  multiply(FewQueries<Words, T, 0>(queries, count, dim));
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
