// SPDX-License-Identifier: Apache-2.0
// What lanes have to do with each other: comparisons as one bit a lane, lists of lanes, counts,
// look-ups and sums over the lanes.
#pragma once

#include <cstddef>
#include <utility>

#include "longclock/common/inline.h"
#include "longclock/common/memory-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// One bit a lane of a comparison's result.
inline uint32_t bitmask(Vi comparison) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)comparison);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)comparison));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= (comparison[lane] & 1u) << lane;
  return bits;
#endif
}

inline uint32_t bitmask(Vl comparison) {
#if defined(__AVX512F__)
  return _mm512_movepi64_mask((__m512i)comparison);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_pd((__m256d)comparison));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < kWideLanes; ++lane) bits |= (comparison[lane] & 1u) << lane;
  return bits;
#endif
}

// Bits that are set in each lane: of halves of bytes by a table, then added up.
inline Vq popcount(Vq v) {
#if defined(__AVX512BW__)
  const __m512i table = _mm512_maskz_broadcast_i32x4(
      0xffff, _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m512i halves = _mm512_set1_epi8(15), bits = (__m512i)v;
  const __m512i low = _mm512_and_si512(bits, halves);
  const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bits, 4), halves);
  const __m512i counts =
      _mm512_add_epi8(_mm512_shuffle_epi8(table, low), _mm512_shuffle_epi8(table, high));
  return (Vq)_mm512_sad_epu8(counts, _mm512_setzero_si512());
#elif defined(__AVX2__)
  const __m256i table =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i halves = _mm256_set1_epi8(15), bits = (__m256i)v;
  const __m256i low = _mm256_and_si256(bits, halves);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), halves);
  const __m256i counts =
      _mm256_add_epi8(_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high));
  return (Vq)_mm256_sad_epu8(counts, _mm256_setzero_si256());
#else
  v -= v >> 1 & 0x5555555555555555u;
  v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
  v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return v * 0x0101010101010101u >> 56;
#endif
}

// How many bytes of `a` are at least those of `b`.
inline int count_at_least(Vb a, Vb b) {
#if defined(__AVX512BW__)
  return __builtin_popcountll(_mm512_cmpge_epu8_mask((__m512i)a, (__m512i)b));
#elif defined(__AVX2__)
  const __m256i at_least = _mm256_cmpeq_epi8(_mm256_max_epu8((__m256i)a, (__m256i)b), (__m256i)a);
  return __builtin_popcount(static_cast<uint32_t>(_mm256_movemask_epi8(at_least)));
#else
  int count = 0;
  for (int i = 0; i < kByteLanes; ++i) count += a[i] >= b[i];
  return count;
#endif
}

// One bit a lane, set where not a <= b: where a is larger, or either is NaN.
inline uint32_t not_at_most(Vf a, Vf b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NLE_UQ);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_NLE_UQ)));
#else
  return bitmask(~(a <= b));
#endif
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define LONGCLOCK_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#if !defined(LONGCLOCK_SHUFFLE)
#define LONGCLOCK_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Vi{__VA_ARGS__})
#endif

// The number of every lane.
template <std::size_t... lane>
inline Vi lane_numbers(std::index_sequence<lane...>) {
  return Vi{static_cast<int32_t>(lane)...};
}
inline Vi lane_numbers() { return lane_numbers(std::make_index_sequence<kLanes>()); }

// The first n lanes' bits, or all of them.
inline uint32_t first_lanes(int64_t n) { return (uint32_t{1} << min_of(n, kLanes)) - 1u; }

#if defined(__AVX2__) && !defined(__AVX512F__)
// Byte i of an element: the number of the i-th bit that is set in the element's index.
struct SetBits {
  uint64_t lists[256];
};
inline constexpr SetBits kSetBits = [] {
  SetBits set{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    int count = 0;
    for (uint64_t bit = 0; bit < 8; ++bit) {
      if (bits >> bit & 1) set.lists[bits] |= bit << 8 * count++;
    }
  }
  return set;
}();
#endif

// Writes first + the number of every lane whose bit is set, in order, and returns how many those
// are. `to` has room for kLanes.
inline int64_t list_lanes(uint32_t bits, int32_t first, int32_t* to) {
#if defined(__AVX512F__)
  const Vi lanes = lane_numbers() + first;
  const auto set = static_cast<__mmask16>(bits);
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(set, (__m512i)lanes));
  return __builtin_popcount(bits);
#elif defined(__AVX2__)
  const __m128i list = _mm_cvtsi64_si128(static_cast<int64_t>(kSetBits.lists[bits]));
  const Vi lanes = (Vi)_mm256_cvtepu8_epi32(list) + first;
  std::memcpy(to, &lanes, sizeof(lanes));
  return __builtin_popcount(bits);
#else
  int64_t count = 0;
  for (; bits != 0; bits &= bits - 1) to[count++] = first + __builtin_ctz(bits);
  return count;
#endif
}

// values[index] of each lane.
inline Vf gather(const float* values, Vi index) {
#if defined(__AVX512F__)
  return (Vf)_mm512_mask_i32gather_ps((__m512)Vf{}, 0xffff, (__m512i)index, values, 4);
#elif defined(__AVX2__)
  return (Vf)_mm256_i32gather_ps(values, (__m256i)index, 4);
#else
  Vf found;
  for (int lane = 0; lane < kLanes; ++lane) found[lane] = values[index[lane]];
  return found;
#endif
}

// 32 values in registers, looked up by the five lowest bits of each lane.
class LookupTable {
 public:
  static constexpr int kSize = 32;
  explicit LookupTable(const float* values) {
    for (int i = 0; i < kVectors; ++i) values_[i] = load(values + i * kLanes);
  }
  Vf operator[](Vi index) const {
#if defined(__AVX512F__)
    return (Vf)_mm512_permutex2var_ps((__m512)values_[0], (__m512i)index, (__m512)values_[1]);
#elif defined(__AVX2__)
    __m256 parts[kVectors];  // each by the three lowest bits
    for (int i = 0; i < kVectors; ++i) {
      parts[i] = _mm256_permutevar8x32_ps((__m256)values_[i], (__m256i)index);
    }
    const __m256 bit3 = (__m256)(index << 28), bit4 = (__m256)(index << 27);
    return (Vf)_mm256_blendv_ps(_mm256_blendv_ps(parts[0], parts[1], bit3),
                                _mm256_blendv_ps(parts[2], parts[3], bit3), bit4);
#else
    Vf found;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int i = index[lane] & (kSize - 1);
      found[lane] = values_[i / kLanes][i % kLanes];
    }
    return found;
#endif
  }

 private:
  static constexpr int kVectors = kSize / kLanes;
  Vf values_[kVectors];
};

// Lanes in blocks of h: the even ones of x, and the odd ones of y.
template <int h, std::size_t... lane>
inline Vf blend_blocks(Vf x, Vf y, std::index_sequence<lane...>) {
#if defined(__AVX512F__)  // GCC takes a shuffle for some, which fewer of the core's units do
  return (Vf)_mm512_mask_blend_ps((((lane / h % 2) << lane) | ...), (__m512)x, (__m512)y);
#else
  return LONGCLOCK_SHUFFLE(x, y, (lane / h % 2 == 0 ? int(lane) : int(lane) + kLanes)...);
#endif
}
// Sums each vector's neighbouring blocks of h lanes, x's into the even blocks, y's odd. Half of the
// lanes stay where they are: a blend, and one shuffle of the others.
template <int h, std::size_t... lane>
inline Vf add_blocks(Vf x, Vf y, std::index_sequence<lane...> lanes) {
  return blend_blocks<h>(x, y, lanes) +
         LONGCLOCK_SHUFFLE(x, y, (lane / h % 2 == 0 ? int(lane) + h : int(lane) - h + kLanes)...);
}
template <int h>
inline Vf add_blocks(Vf x, Vf y) {
  return add_blocks<h>(x, y, std::make_index_sequence<kLanes>());
}
template <int h>
LONGCLOCK_INLINE void reduce_rows_step(Vf* rows) {
  for (int r = 0; r < h; ++r) rows[r] = add_blocks<h>(rows[r], rows[r + h]);
  if constexpr (h > 1) reduce_rows_step<h / 2>(rows);
}
// Lane r of the result is the sum over the lanes of rows[r], always in the same order: lane i with
// lane i + kLanes / 2, and so on down. Overwrites rows.
inline Vf reduce_rows(Vf* rows) {
  reduce_rows_step<kLanes / 2>(rows);
  return rows[0];
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
