// SPDX-License-Identifier: Apache-2.0
// Rows of a tile whose words lie side by side, so that one pointer leads to all of them: worth a
// copy where a row has so few words that a tile is done soon.
#pragma once

#include "longclock/search/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Elements of a packed tile, behind the last of which kLanes more may be written.
constexpr int64_t packed_size(int64_t words) { return words * kTileRows; }

// Packs n <= kTileRows rows, zeros for those beyond. Word w of row r is out[w * kTileRows + r].
// Returns, a lane a row, the sums of its elements.
template <class Words, class T>
inline Vi pack_tile(const T* const* rows, int64_t n, int64_t dim, float* out) {
  const Vf ones = (Vf)(Vi{} + 0x01010101);
  Vf sums{};
  for (int64_t w = 0; w < Words::words(dim); w += kLanes) {
    Vf tile[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) {
      tile[r] = r < n ? Words::load_words(rows[r], w, dim) : Vf{};
    }
    transpose_step<kLanes / 2>(tile);
    for (int64_t i = 0; i < min_of(kLanes, Words::words(dim) - w); ++i) {
      sums = Words::multiply_add(tile[i], ones, sums);
      store(tile[i], out + (w + i) * kTileRows);
    }
  }
  return (Vi)sums;
}

// As add_tile, of kRows rows of a packed tile.
template <class Words, int kRows>
inline void add_packed_tile(const float* rows, const float* panel, int64_t words, Vf (*sums)[2]) {
  Vf acc[kRows][2];
#pragma GCC unroll 12
  for (int a = 0; a < kRows; ++a) {
    acc[a][0] = sums[a][0];
    acc[a][1] = sums[a][1];
  }
  for (int64_t w = 0; w < words; ++w, rows += kTileRows, panel += kPanelLanes) {
    const Vf low = load(panel), high = load(panel + kLanes);
#pragma GCC unroll 12
    for (int a = 0; a < kRows; ++a) {
      const Vf word = Words::splat_word(reinterpret_cast<const char*>(rows + a));
      acc[a][0] = Words::multiply_add(word, low, acc[a][0]);
      acc[a][1] = Words::multiply_add(word, high, acc[a][1]);
    }
  }
#pragma GCC unroll 12
  for (int a = 0; a < kRows; ++a) {
    sums[a][0] = acc[a][0];
    sums[a][1] = acc[a][1];
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
