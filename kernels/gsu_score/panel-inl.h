// SPDX-License-Identifier: Apache-2.0
// Many queries against one block of keys, as a small matrix product: keys are turned into panels of
// kPanelKeys columns, once for all queries of a task, and tiles of queries x keys stay in
// registers. Each product is one chain of multiply-adds along the dimension, so its bits depend on
// its own query and key only.
#pragma once

#include "../common/simd-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int kPanelKeys = 2 * kLanes;
inline constexpr int kPanelQueries = kLanes == 16 ? 12 : 6;

template <int h, std::size_t... lane>
inline void swap_blocks(Vf* a, Vf* b, std::index_sequence<lane...>) {
  const Vf x = *a, y = *b;
  *a = LONGCLOCK_SHUFFLE(x, y, (lane / h % 2 == 0 ? int(lane) : int(lane) - h + kLanes)...);
  *b = LONGCLOCK_SHUFFLE(x, y, (lane / h % 2 == 0 ? int(lane) + h : int(lane) + kLanes)...);
}
template <int h>
inline void transpose_step(Vf* rows) {
  for (int r = 0; r < kLanes; ++r) {
    if ((r & h) == 0) {
      swap_blocks<h>(rows + r, rows + r + h, std::make_index_sequence<kLanes>());
    }
  }
  if constexpr (h > 1) transpose_step<h / 2>(rows);
}

// panel[d][key] for n <= kPanelKeys keys; zeros for the keys beyond.
template <class T>
inline void pack_panel(const T* const* rows, int64_t n, int64_t dim, float* panel) {
  for (int64_t half = 0; half < kPanelKeys; half += kLanes) {
    for (int64_t d = 0; d < dim; d += kLanes) {
      const int64_t width = smaller(kLanes, dim - d);
      Vf tile[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        tile[r] = half + r >= n     ? Vf{}
                  : width == kLanes ? load(rows[half + r] + d)
                                    : load_partial(rows[half + r] + d, width);
      }
      transpose_step<kLanes / 2>(tile);
      float* to = panel + d * kPanelKeys + half;
      if (width == kLanes) {
        for (int64_t i = 0; i < kLanes; ++i) store(tile[i], to + i * kPanelKeys);
      } else {
        for (int64_t i = 0; i < width; ++i) store(tile[i], to + i * kPanelKeys);
      }
    }
  }
}

// Queries of tiles of kPanelQueries, what is left over of tiles of 2 (an odd last one twice): each
// tile is [dim][its queries], and the tile of query i starts at i * dim. Room for count + 1
// queries.
inline void pack_queries(const float* queries, int64_t stride, int64_t count, int64_t dim,
                         float* packed) {
  for (int64_t i = 0; i < count;) {
    const int64_t width = i + kPanelQueries <= count ? kPanelQueries : 2;
    float* tile = packed + i * dim;
    for (int64_t a = 0; a < width; ++a) {
      const float* query = queries + smaller(i + a, count - 1) * stride;
      for (int64_t d = 0; d < dim; ++d) tile[d * width + a] = query[d];
    }
    i += width;
  }
}

template <int kQueries>
inline void panel_tile(const float* queries, const float* panel, int64_t dim, float scale,
                       const float* s, int64_t wanted, float* out, int64_t out_stride) {
  Vf acc[kQueries][2] = {};
  for (int64_t d = 0; d < dim; ++d) {
    const Vf low = load(panel + d * kPanelKeys), high = load(panel + d * kPanelKeys + kLanes);
#pragma GCC unroll 12
    for (int a = 0; a < kQueries; ++a) {
      const Vf q = splat(queries[d * kQueries + a]);
      acc[a][0] = fma(q, low, acc[a][0]);
      acc[a][1] = fma(q, high, acc[a][1]);
    }
  }
#pragma GCC unroll 12
  for (int a = 0; a < kQueries; ++a) {
    if (a < wanted) {
      store(fma(splat(scale), acc[a][0], load(s)), out + a * out_stride);
      store(fma(splat(scale), acc[a][1], load(s + kLanes)), out + a * out_stride + kLanes);
    }
  }
}

// out[i * out_stride + key] = scale * query i . key + s[key], for the kPanelKeys keys of a panel
// and packed queries.
inline void score_panel(const float* queries, int64_t count, const float* panel, int64_t dim,
                        float scale, const float* s, float* out, int64_t out_stride) {
  int64_t i = 0;
  for (; i + kPanelQueries <= count; i += kPanelQueries) {
    panel_tile<kPanelQueries>(queries + i * dim, panel, dim, scale, s, kPanelQueries,
                              out + i * out_stride, out_stride);
  }
  for (; i < count; i += 2) {
    panel_tile<2>(queries + i * dim, panel, dim, scale, s, count - i, out + i * out_stride,
                  out_stride);
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
