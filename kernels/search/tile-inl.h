// SPDX-License-Identifier: Apache-2.0
// A small matrix product that stays in registers: a few rows of one side against a panel of
// kPanelLanes rows of the other. The panel is turned around once, so that its rows are lanes; the
// rows of the first side are broadcast straight from where they lie, which needs no copy, whatever
// their stride. gsu_score makes panels of keys and broadcasts queries, clock_gsu makes panels of
// candidates and broadcasts keys.
//
// Rows are multiplied in 32-bit words: one float, or two bfloat16 or four int8 where the machine
// multiplies these. Each product is one chain of multiply-adds along the words, so its bits depend
// on its two rows only, and not on which of them was broadcast.
#pragma once

#include "longclock/common/lanes-inl.h"
#include "longclock/common/memory-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int kPanelLanes = 2 * kLanes;
// As many accumulators as leave registers for the panel's two vectors and a broadcast.
inline constexpr int kTileRows = kLanes == 16 ? 12 : 6;
inline constexpr int kRestRows = kTileRows / 3;

// A word is one element, widened to 32 bits.
struct FloatWords {
  using Element = float;
  static constexpr int64_t kElements = 1;
  static constexpr int64_t words(int64_t dim) { return dim; }
  static Vf splat_word(const char* word) {
    float value;
    std::memcpy(&value, word, 4);
    return splat(value);
  }
  static Vf multiply_add(Vf row, Vf panel, Vf sum) { return fma(row, panel, sum); }
  // Words that have all their elements.
  static constexpr int64_t whole_words(int64_t dim) { return dim; }
  template <class T>
  static Vf load_whole_words(const T* row, int64_t at) {
    return load(row + at);
  }
  // Words [at, at + kLanes) of a row, zeros past its end.
  template <class T>
  static Vf load_words(const T* row, int64_t at, int64_t dim) {
    return at + kLanes <= dim ? load_whole_words(row, at) : load_partial(row + at, dim - at);
  }
  // What sums end as.
  static Vf product(Vf sum) { return sum; }
  // A padded row of 32-bit elements as words.
  static void from_floats(const float* row, int64_t words, float* out) {
    // A row of no words may be null, which memcpy may not be given.
    if (words > 0) std::memcpy(out, row, static_cast<size_t>(words) * 4);
  }
};

#if defined(__AVX512BF16__)
// A word is two neighbours, multiplied and added to a 32-bit sum by one instruction.
struct BFloat16Words {
  using Element = BFloat16;
  static constexpr int64_t kElements = 2;
  static constexpr int64_t words(int64_t dim) { return (dim + 1) / 2; }
  static Vf splat_word(const char* word) {
    int32_t value;
    std::memcpy(&value, word, 4);
    return (Vf)_mm512_set1_epi32(value);
  }
  static Vf multiply_add(Vf row, Vf panel, Vf sum) {
    return (Vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)row, (__m512bh)panel);
  }
  static constexpr int64_t whole_words(int64_t dim) { return dim / 2; }
  static Vf load_whole_words(const BFloat16* row, int64_t at) { return load_raw<Vf>(row + 2 * at); }
  static Vf load_words(const BFloat16* row, int64_t at, int64_t dim) {
    if (2 * (at + kLanes) <= dim) return load_whole_words(row, at);
    const auto present = static_cast<__mmask32>((uint64_t{1} << (dim - 2 * at)) - 1);
    return (Vf)_mm512_maskz_loadu_epi16(present, row + 2 * at);
  }
  // Elements of int8, which bfloat16 holds exactly.
  static Vf load_whole_words(const Int8By<BFloat16>* row, int64_t at) {
    return of_bytes(load_raw<__m256i>(row + 2 * at));
  }
  static Vf load_words(const Int8By<BFloat16>* row, int64_t at, int64_t dim) {
    if (2 * (at + kLanes) <= dim) return load_whole_words(row, at);
    const auto present = static_cast<__mmask32>((uint64_t{1} << (dim - 2 * at)) - 1);
    return of_bytes(_mm256_maskz_loadu_epi8(present, row + 2 * at));
  }
  static Vf of_bytes(__m256i bytes) {
    const auto widened = [](__m128i half) {
      return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, half));
    };
    return (Vf)_mm512_cvtne2ps_pbh(widened(_mm256_extracti128_si256(bytes, 1)),
                                   widened(_mm256_castsi256_si128(bytes)));
  }
  static Vf product(Vf sum) { return sum; }
  // The floats are bfloat16 numbers.
  static void from_floats(const float* row, int64_t words, float* out) {
    for (int64_t w = 0; w < words; ++w) {
      const uint32_t word =
          float_to_bits(row[2 * w]) >> 16 | (float_to_bits(row[2 * w + 1]) & 0xffff0000u);
      std::memcpy(out + w, &word, 4);
    }
  }
};
#endif

#if defined(__AVX512VNNI__)
// A word is four neighbours, multiplied and added to a sum of 32 bits by one instruction, exactly.
// It takes unsigned bytes on one side: a panel's elements have 128 added, and sums begin with what
// that adds to them taken away, see KeyList.
struct Int8Words {
  using Element = Int8By<int8_t>;
  static constexpr int64_t kElements = 4;
  static constexpr int64_t words(int64_t dim) { return (dim + 3) / 4; }
  static Vf splat_word(const char* word) { return BFloat16Words::splat_word(word); }
  static Vf multiply_add(Vf row, Vf panel, Vf sum) {
    // GCC 12 keeps the sums of a tile in memory where this is the intrinsic. MemorySanitizer checks
    // what goes into an instruction like this, and takes what comes out for written.
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(panel), "v"(row));
    return sum;
  }
  static Vf load_words(const Element* row, int64_t at, int64_t dim) {
    const int64_t left = min_of(dim - 4 * at, 4 * kLanes);
    return (Vf)_mm512_maskz_loadu_epi8(~uint64_t{0} >> (64 - left), row + 4 * at);
  }
  static Vf product(Vf sum) { return __builtin_convertvector((Vi)sum, Vf); }
  // Of a panel. The floats are integers from -127 to 127.
  static void from_floats(const float* row, int64_t words, float* out) {
    for (int64_t w = 0; w < words; w += 4) {
      const Vi biased = __builtin_convertvector(load(row + 4 * w), Vi) + 128;
      const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)biased);
      std::memcpy(out + w, &bytes, static_cast<size_t>(4 * min_of(4, words - w)));
    }
  }
};
#endif

template <class T>
struct WordsOf {
  using Type = FloatWords;
};
#if defined(__AVX512BF16__)
template <>
struct WordsOf<BFloat16> {
  using Type = BFloat16Words;
};
template <>
struct WordsOf<Int8By<BFloat16>> {
  using Type = BFloat16Words;
};
template <>
struct WordsOf<Int8By<int8_t>> {
  using Type = Int8Words;
};
#endif

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

// panel[word][row] for n <= kPanelLanes rows; zeros for the rows beyond.
template <class Words, class T>
inline void pack_panel(const T* const* rows, int64_t n, int64_t dim, float* panel) {
  const int64_t words = Words::words(dim);
  for (int64_t half = 0; half < kPanelLanes; half += kLanes) {
    for (int64_t w = 0; w < words; w += kLanes) {
      Vf tile[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        tile[r] = half + r >= n ? Vf{} : Words::load_words(rows[half + r], w, dim);
      }
      transpose_step<kLanes / 2>(tile);
      float* to = panel + w * kPanelLanes + half;
      if (w + kLanes <= words) {
        for (int64_t i = 0; i < kLanes; ++i) store(tile[i], to + i * kPanelLanes);
      } else {
        for (int64_t i = 0; i < words - w; ++i) store(tile[i], to + i * kPanelLanes);
      }
    }
  }
}

// Goes on with the chains in `sums`: sums[row] += the products of a row with the panel's rows.
template <class Words, int kRows>
inline void add_tile(const char* const* rows, const float* panel, int64_t words, Vf (*sums)[2]) {
  const char* row[kRows];
  Vf acc[kRows][2];
#pragma GCC unroll 12
  for (int a = 0; a < kRows; ++a) {
    row[a] = rows[a];
    acc[a][0] = sums[a][0];
    acc[a][1] = sums[a][1];
  }
  for (int64_t w = 0; w < words; ++w) {
    const Vf low = load(panel + w * kPanelLanes), high = load(panel + w * kPanelLanes + kLanes);
#pragma GCC unroll 12
    for (int a = 0; a < kRows; ++a) {
      const Vf word = Words::splat_word(row[a] + 4 * w);
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

// sums[row] = the products of a row with the panel's rows.
template <class Words, int kRows>
inline void multiply_tile(const char* const* rows, const float* panel, int64_t words,
                          Vf (*sums)[2]) {
#pragma GCC unroll 12
  for (int a = 0; a < kRows; ++a) sums[a][0] = sums[a][1] = Vf{};
  add_tile<Words, kRows>(rows, panel, words, sums);
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
