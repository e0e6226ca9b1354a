// SPDX-License-Identifier: Apache-2.0
// Which scores of a panel pass their candidates' thresholds, one bit each, and a list of those.
// Whether a score passes cannot be predicted, so there is no branch for each.
#pragma once

#include <bit>
#include <type_traits>

#include "longclock/search/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// One bit a lane of a panel's row; 64 bits are whole rows in order.
using RowBits = std::conditional_t<kPanelLanes == 32, uint32_t,
                                   std::conditional_t<kPanelLanes == 16, uint16_t, uint8_t>>;
inline constexpr int64_t kWordRows = 64 / kPanelLanes;
static_assert(8 * sizeof(RowBits) == kPanelLanes && std::endian::native == std::endian::little);

struct PanelThresholds {
  Vf low, high;
  explicit PanelThresholds(const float* thresholds)
      : low(load(thresholds)), high(load(thresholds + kLanes)) {}
  RowBits passed(Vf a, Vf b) const {
    return static_cast<RowBits>(not_at_most(a, low) | not_at_most(b, high) << kLanes);
  }
  // The same to memory. GCC collects those of a tile in vectors, lane by lane.
  void store_passed(Vf a, Vf b, RowBits* to) const {
#if defined(__AVX512F__)
    const __mmask16 of_a = _mm512_cmp_ps_mask((__m512)a, (__m512)low, _CMP_NLE_UQ);
    const __mmask16 of_b = _mm512_cmp_ps_mask((__m512)b, (__m512)high, _CMP_NLE_UQ);
    __asm__("kmovd %1, %0" : "=m"(*to) : "k"(_mm512_kunpackw(of_b, of_a)));
#else
    *to = passed(a, b);
#endif
  }
};

// Bits of the first n lanes of every row.
inline uint64_t lanes_of_rows(int64_t n) {
  if (n >= kPanelLanes) return ~uint64_t{0};
  uint64_t lanes = (uint64_t{1} << n) - 1;
  for (int width = kPanelLanes; width < 64; width *= 2) lanes |= lanes << width;
  return lanes;
}

// Elements that list_passed writes beyond the last of its result.
inline constexpr int64_t kListSlack = 4;

// Writes where in [n, kPanelLanes] the bits of `passed` and `lanes` are set, and returns how many
// are. passed has room for n rounded up to kWordRows rows.
inline int64_t list_passed(RowBits* passed, int64_t n, uint64_t lanes, uint32_t* list) {
  constexpr uint64_t kLast = uint64_t{1} << 63;
  int64_t count = 0;
  for (int64_t i = n; i < round_up(n, kWordRows); ++i) passed[i] = 0;
  for (int64_t r = 0; r < n; r += kWordRows) {
    uint64_t bits;
    std::memcpy(&bits, passed + r, 8);
    bits &= lanes;
    const uint32_t at = static_cast<uint32_t>(r * kPanelLanes);
    uint32_t* to = list + count;
    count += __builtin_popcountll(bits);
    // Four at once, used or not: seldom are there more.
#pragma GCC unroll 4
    for (int64_t i = 0; i < kListSlack; ++i) {
      *to++ = at + static_cast<uint32_t>(__builtin_ctzll(bits | kLast));
      bits &= bits - 1;
    }
    for (; bits != 0; bits &= bits - 1) {
      *to++ = at + static_cast<uint32_t>(__builtin_ctzll(bits));
    }
  }
  return count;
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
