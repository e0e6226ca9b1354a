// SPDX-License-Identifier: Apache-2.0
// The two loops that all of the library's time goes to: dot products of rows, and weighted sums of
// rows. Each result is accumulated in an order that depends on its own operands only (lane i takes
// elements i, i + kLanes, ...; rows in sequence), never on how many rows or queries are done at
// once: that is what makes a row's bits independent of the rest of the batch.
#pragma once

#include "longclock/common/lanes-inl.h"
#include "longclock/common/memory-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Where it is called, a function that only prefetches has an effect: else GCC drops calls of it.
inline void has_effect() { __asm__ volatile(""); }

// Hints the row into the cache, one line at a time.
inline void prefetch_row(const void* row, int64_t bytes) {
  const char* at = static_cast<const char*>(row);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
  has_effect();
}

// The same into the second-level cache, for rows that are a while away: more of them can be under
// way at once, and the first level keeps what is being worked on.
inline void prefetch_far_row(const void* row, int64_t bytes) {
  const char* at = static_cast<const char*>(row);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
  has_effect();
}

// Lane sums of q . row, not yet reduced. q is padded with zeros to a multiple of kLanes.
template <class T>
inline Vf dot_lanes(const float* q, const T* row, int64_t dim) {
  Vf acc = {};
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) acc = fma(load(q + i), load(row + i), acc);
  if (i < dim) acc = fma(load(q + i), load_partial(row + i, dim - i), acc);
  return acc;
}

// q . row.
template <class T>
inline float dot(const float* q, const T* row, int64_t dim) {
  Vf acc[kLanes] = {dot_lanes(q, row, dim)};
  return reduce_rows(acc)[0];
}

inline constexpr int kTileQueries = kLanes == 16 ? 4 : 2;
inline constexpr int kTileKeys = kLanes / kTileQueries;

// out[i * out_stride + j] = queries[i] . keys[j] for 32-bit rows padded to `dim` = a multiple of
// kLanes. The same bits as dot gives. `ahead` > 0 prefetches what lies so many elements after
// each key: the tile reads several keys at once, which the hardware prefetcher does not follow.
inline void dot_tiles(const float* const* queries, int64_t query_count, const float* const* keys,
                      int64_t key_count, int64_t dim, int64_t ahead, float* out,
                      int64_t out_stride) {
  for (int64_t i = 0; i < query_count; i += kTileQueries) {
    const float* q[kTileQueries];
    for (int t = 0; t < kTileQueries; ++t) q[t] = queries[min_of(i + t, query_count - 1)];
    for (int64_t j = 0; j < key_count; j += kTileKeys) {
      const float* k[kTileKeys];
      for (int t = 0; t < kTileKeys; ++t) k[t] = keys[min_of(j + t, key_count - 1)];
      for (int t = 0; ahead > 0 && i == 0 && t < kTileKeys; ++t) {
        prefetch_far_row(k[t] + ahead, dim * static_cast<int64_t>(sizeof(float)));
      }
      Vf acc[kLanes] = {};
      for (int64_t v = 0; v < dim; v += kLanes) {
        Vf key[kTileKeys];
#pragma GCC unroll 4
        for (int t = 0; t < kTileKeys; ++t) key[t] = load(k[t] + v);
#pragma GCC unroll 4
        for (int a = 0; a < kTileQueries; ++a) {
          const Vf query = load(q[a] + v);
#pragma GCC unroll 4
          for (int b = 0; b < kTileKeys; ++b) {
            acc[a * kTileKeys + b] = fma(query, key[b], acc[a * kTileKeys + b]);
          }
        }
      }
      alignas(64) float sums[kLanes];
      store(reduce_rows(acc), sums);
      float* to = out + i * out_stride + j;
      if (i + kTileQueries <= query_count && j + kTileKeys <= key_count) {
#pragma GCC unroll 4
        for (int a = 0; a < kTileQueries; ++a) {
          std::memcpy(to + a * out_stride, sums + a * kTileKeys, kTileKeys * sizeof(float));
        }
        continue;
      }
      for (int a = 0; a < min_of(kTileQueries, query_count - i); ++a) {
        for (int b = 0; b < min_of(kTileKeys, key_count - j); ++b) {
          to[a * out_stride + b] = sums[a * kTileKeys + b];
        }
      }
    }
  }
}

template <int kOuts, int kVectors>
inline void weighted_tile(const float* weights, int64_t out_step, int64_t row_step,
                          const float* const* rows, int64_t n, int64_t v, bool add, float* out,
                          int64_t out_stride) {
  Vf acc[kOuts][kVectors] = {};
  if (add) {
#pragma GCC unroll 6
    for (int a = 0; a < kOuts; ++a) {
#pragma GCC unroll 4
      for (int b = 0; b < kVectors; ++b) acc[a][b] = load(out + a * out_stride + v + b * kLanes);
    }
  }
  for (int64_t r = 0; r < n; ++r) {
    Vf row[kVectors];
#pragma GCC unroll 4
    for (int b = 0; b < kVectors; ++b) row[b] = load(rows[r] + v + b * kLanes);
#pragma GCC unroll 6
    for (int a = 0; a < kOuts; ++a) {
      const Vf weight = splat(weights[a * out_step + r * row_step]);
#pragma GCC unroll 4
      for (int b = 0; b < kVectors; ++b) acc[a][b] = fma(weight, row[b], acc[a][b]);
    }
  }
#pragma GCC unroll 6
  for (int a = 0; a < kOuts; ++a) {
#pragma GCC unroll 4
    for (int b = 0; b < kVectors; ++b) store(acc[a][b], out + a * out_stride + v + b * kLanes);
  }
}

template <int kVectors>
inline void weighted_columns(const float* weights, int64_t out_step, int64_t row_step,
                             int64_t out_count, const float* const* rows, int64_t n, int64_t v,
                             bool add, float* out, int64_t out_stride) {
  constexpr int64_t kRows = 64;  // of kVectors vectors: they stay in the first-level cache
  for (int64_t r = 0; r < n; r += kRows) {
    const int64_t count = min_of(kRows, n - r);
    const float* w = weights + r * row_step;
    const bool onto = add || r > 0;
    int64_t i = 0;
    for (; i + 6 <= out_count; i += 6) {
      weighted_tile<6, kVectors>(w + i * out_step, out_step, row_step, rows + r, count, v, onto,
                                 out + i * out_stride, out_stride);
    }
    for (; i + 4 <= out_count; i += 4) {
      weighted_tile<4, kVectors>(w + i * out_step, out_step, row_step, rows + r, count, v, onto,
                                 out + i * out_stride, out_stride);
    }
    for (; i < out_count; ++i) {
      weighted_tile<1, kVectors>(w + i * out_step, out_step, row_step, rows + r, count, v, onto,
                                 out + i * out_stride, out_stride);
    }
  }
}

// out[i * out_stride ..] = sum over r < n of weights[i * out_step + r * row_step] * rows[r], for
// 32-bit rows padded to `dim` = a multiple of kLanes; n > 0. Where `add`, onto what is there.
inline void weighted_rows(const float* weights, int64_t out_step, int64_t row_step,
                          int64_t out_count, const float* const* rows, int64_t n, int64_t dim,
                          bool add, float* out, int64_t out_stride) {
  constexpr int kVectors = kLanes == 16 ? 4 : 2;
  int64_t v = 0;
  for (; v + kVectors * kLanes <= dim; v += kVectors * kLanes) {
    weighted_columns<kVectors>(weights, out_step, row_step, out_count, rows, n, v, add, out,
                               out_stride);
  }
  for (; v < dim; v += kLanes) {
    weighted_columns<1>(weights, out_step, row_step, out_count, rows, n, v, add, out, out_stride);
  }
}
inline void add_weighted_rows(const float* weights, int64_t out_step, int64_t row_step,
                              int64_t out_count, const float* const* rows, int64_t n, int64_t dim,
                              float* out, int64_t out_stride) {
  weighted_rows(weights, out_step, row_step, out_count, rows, n, dim, true, out, out_stride);
}

// Points `out` at 32-bit copies of the rows, padded with zeros to a multiple of kLanes, made in
// `copies` [n, round_up(dim, kLanes)]; rows that are so already are not copied.
template <class T>
inline void widen_rows(const T* const* rows, int64_t n, int64_t dim, float* copies,
                       const float** out) {
  if constexpr (sizeof(T) == 4) {
    if (dim % kLanes == 0) {
      for (int64_t r = 0; r < n; ++r) out[r] = rows[r];
      return;
    }
  }
  const int64_t padded = round_up(dim, kLanes);
  for (int64_t r = 0; r < n; ++r) {
    float* copy = copies + r * padded;
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) store(load(rows[r] + i), copy + i);
    if (i < dim) store(load_partial(rows[r] + i, dim - i), copy + i);
    out[r] = copy;
  }
}

// Rounds a 32-bit row to T and stores its first `dim` elements.
template <class T>
inline void narrow_row(const float* from, int64_t dim, T* to) {
  for (int64_t i = 0; i < dim; ++i) from_float(from[i], to + i);
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
