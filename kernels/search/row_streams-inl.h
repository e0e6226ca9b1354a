// SPDX-License-Identifier: Apache-2.0
// Dot products of one query, or of a few, with rows that are read once, from memory.
#pragma once

#include "longclock/common/rows-inl.h"
#include "longclock/search/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Rows of several streams, one of each in turn: more of the memory's requests are in flight than
// when one stream is read, which stops at every page.
inline constexpr int kStreams = 4;
inline constexpr int kStreamRows = kLanes / kStreams;

// Nothing in memory moves across it: keeps row loads in row order, which is what
// the hardware prefetcher follows.
inline void end_of_row() { __asm__ volatile("" ::: "memory"); }

// Makes a pointer that a loop moves on opaque: GCC otherwise keeps one for every turn of an
// unrolled loop, more than there are registers.
template <class T>
inline void one_pointer(T*& pointer) {
  __asm__("" : "+r"(pointer));
}

// Bytes of a stream that are prefetched: so few that those of all streams leave room in the
// first-level cache, or in the second-level one.
inline constexpr int64_t kNearAhead = 2048, kFarAhead = 4096;

// Rows that lie side by side in each stream, prefetched in addition to what the hardware does,
// which stops at the end of a page.
template <class T>
class StridedRows {
 public:
  static constexpr bool kScattered = false;
  // first: of each stream. stride: elements from one row to the next.
  StridedRows(const T* const* first, int64_t stride, int64_t row_bytes, int64_t bytes_ahead)
      : stride_(stride) {
    const int64_t rows = min_of(bytes_ahead / max_of(1, row_bytes), bytes_ahead / kMinRowBytes);
    ahead_ = max_of(1, rows) * stride;
    for (int s = 0; s < kStreams; ++s) next_[s] = first[s];
  }
  const T* ahead(int stream) const { return next_[stream] + ahead_; }
  void prefetch(int stream, int64_t bytes) const { prefetch_row(ahead(stream), bytes); }
  const T* take(int stream) {
    const T* row = next_[stream];
    next_[stream] += stride_;
    one_pointer(next_[stream]);
    return row;
  }

 private:
  static constexpr int64_t kMinRowBytes = 128;  // shorter rows are fetched no further ahead

  const T* next_[kStreams];
  int64_t stride_, ahead_;
};

// Rows gathered by pointers, kAhead more than are multiplied.
template <class T>
class GatheredRows {
 public:
  static constexpr bool kScattered = true;
  static constexpr int64_t kAhead = 8;
  explicit GatheredRows(const T* const* const* first) {
    for (int s = 0; s < kStreams; ++s) next_[s] = first[s];
  }
  const T* ahead(int stream) const { return next_[stream][kAhead]; }
  void prefetch(int stream, int64_t bytes) const { prefetch_far_row(ahead(stream), bytes); }
  const T* take(int stream) { return *next_[stream]++; }

 private:
  const T* const* next_[kStreams];
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
  static constexpr int64_t row_bytes() {
    return kVectors * kLanes * Words::kElements * static_cast<int64_t>(sizeof(T));
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
  int64_t row_bytes() const {
    return dim_ * static_cast<int64_t>(sizeof(T));
  }
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

// Sums over the lanes of four vectors, kStreamRows of each, as reduce_rows begins them. The second
// step of wide vectors is one that shuffles whole 128 bits, which is quicker.
template <std::size_t... lane>
inline Vf add_streams(Vf a, Vf b, Vf c, Vf d, std::index_sequence<lane...>) {
  constexpr int h = kStreamRows;
  if constexpr (kLanes == 16) {
    const Vf x = add_blocks<2 * h>(a, b), y = add_blocks<2 * h>(c, d);
    return LONGCLOCK_SHUFFLE(x, y, (int(lane) + int(lane) / h * h)...) +
           LONGCLOCK_SHUFFLE(x, y, (int(lane) + int(lane) / h * h + h)...);
  } else {
    return add_blocks<h>(add_blocks<2 * h>(a, c), add_blocks<2 * h>(b, d));
  }
}
inline Vf add_streams(Vf a, Vf b, Vf c, Vf d) {
  return add_streams(a, b, c, d, std::make_index_sequence<kLanes>());
}

// Lane s * kStreamRows + i of the result is the sum over the lanes of the i-th row(s), added up as
// reduce_rows does. Rows of all streams are put together as they come, so that few wait in
// registers.
template <class Row>
LONGCLOCK_INLINE Vf sum_rows(const Row& row) {
  static_assert(kStreams == 4);
  Vf sums[kStreamRows];
#pragma GCC unroll 4
  for (int i = 0; i < kStreamRows; ++i) {
    const Vf a = row(0), b = row(1), c = row(2), d = row(3);
    sums[i] = add_streams(a, b, c, d);
  }
  if constexpr (kStreamRows > 1) reduce_rows_step<kStreamRows / 2>(sums);
  return sums[0];
}

// Lanes [s * kStreamRows, (s + 1) * kStreamRows) of `sums` to out + s * out_stride.
inline void store_streams(Vf sums, float* out, int64_t out_stride) {
  for (int s = 0; s < kStreams; ++s) {
    std::memcpy(out + s * out_stride, reinterpret_cast<const float*>(&sums) + s * kStreamRows,
                kStreamRows * sizeof(float));
  }
}

// By value: what is in memory is read again after every row.
template <class T, class Query, class Rows>
inline void multiply_streams(Query query, Rows rows, int64_t n, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < n; r += kStreamRows) {
    const Vf sums = sum_rows([&](int s) __attribute__((always_inline)) {
      rows.prefetch(s, query.template row_bytes<T>());
      const Vf sum = query.multiply(rows.take(s));
      end_of_row();
      return sum;
    });
    store_streams(sums, out + r, out_stride);
  }
}

// out[s * out_stride + r] = query . row r of stream s, for r < n, a multiple of kStreamRows: lane i
// takes the words i, i + kLanes, ... of the row. query: in words, padded with zeros to a multiple
// of kLanes.
template <class Words, class T, class Rows>
inline void dot_streams(const float* query, const Rows& rows, int64_t n, int64_t dim, float* out,
                        int64_t out_stride) {
  const auto multiply = [&](const auto& q) { multiply_streams<T>(q, rows, n, out, out_stride); };
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
