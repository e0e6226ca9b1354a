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

template <class T>
struct RowStream {
  const T* const* rows;
  int64_t n;
  float* out;  // room for n rounded up to kStreamRows
};

// out[r] = q . rows[r] in every stream, lane i the words i, i + kLanes, ... of the row. q: in
// words, padded with zeros to a multiple of kLanes. `ahead` > 0 prefetches that many rows ahead:
// for rows gathered from a table.
template <class Words, class T>
inline void dot_streams(const float* q, const RowStream<T>* streams, int64_t dim, int64_t ahead) {
  const int64_t words = Words::words(dim), whole = Words::whole_words(dim) / kLanes * kLanes;
  int64_t longest = 0;
  const T* const* rows[kStreams] = {};
  int64_t last[kStreams] = {};
  for (int s = 0; s < kStreams; ++s) {
    if (streams[s].n <= longest) continue;
    longest = streams[s].n;
    for (int i = 0; i < kStreams;
         ++i) {  // a shorter one reads its last row again, an empty one any
      const RowStream<T>& stream = streams[streams[i].n > 0 ? i : s];
      rows[i] = stream.rows;
      last[i] = stream.n - 1;
    }
  }
  for (int64_t r = 0; r < longest; r += kStreamRows) {
    Vf acc[kLanes];
    for (int64_t i = r; i < r + kStreamRows; ++i) {
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) {
        if (ahead > 0) {
          prefetch_far_row(rows[s][smaller(i + ahead, last[s])],
                           dim * static_cast<int64_t>(sizeof(T)));
        }
        const T* row = rows[s][smaller(i, last[s])];
        Vf sum = {};
#pragma GCC unroll 4
        for (int64_t w = 0; w < whole; w += kLanes) {
          sum = Words::multiply_add(load(q + w), Words::load_whole_words(row, w), sum);
        }
        if (whole < words) {
          sum = Words::multiply_add(load(q + whole), Words::load_words(row, whole, dim), sum);
        }
        acc[s * kStreamRows + i - r] = sum;
        end_of_row();
      }
    }
    const Vf sums = reduce_rows(acc);
    for (int s = 0; s < kStreams; ++s) {
      if (r >= streams[s].n) continue;
      std::memcpy(streams[s].out + r, reinterpret_cast<const float*>(&sums) + s * kStreamRows,
                  kStreamRows * sizeof(float));
    }
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
