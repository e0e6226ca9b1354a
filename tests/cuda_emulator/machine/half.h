// SPDX-License-Identifier: Apache-2.0
// Floating-point formats that the host has no arithmetic for: f16, bf16, tf32, and those of 8 bits
// and less. Conversions are exact or rounded once; NaNs become the one that PTX makes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "float_lanes.h"

namespace longclock::emulator {

// A sign, kExponent bits, kMantissa bits. Without infinities the largest exponent is one of
// numbers.
template <unsigned kExponentBits, unsigned kMantissaBits, bool kHasInfinity = true>
struct Format {
  static constexpr unsigned kExponent = kExponentBits, kMantissa = kMantissaBits;
  static constexpr bool kInfinity = kHasInfinity;
  static constexpr int kBias = (1 << (kExponentBits - 1)) - 1;
  static constexpr uint32_t kSign = 1u << (kExponentBits + kMantissaBits);
  static constexpr uint32_t kExponentMask = kSign - (1u << kMantissaBits);
};

struct Half : Format<5, 10> {
  static constexpr float kMax = 65504.0f;
  static constexpr uint32_t kNan = 0x7fff;
};
struct Bfloat : Format<8, 7> {
  static constexpr float kMax = 0x1.fep127f;
  static constexpr uint32_t kNan = 0x7fff;
};
struct E5m2 : Format<5, 2> {
  static constexpr float kMax = 57344.0f;
  static constexpr uint32_t kNan = 0x7f;
};
struct E4m3 : Format<4, 3, false> {
  static constexpr float kMax = 448.0f;
  static constexpr uint32_t kNan = 0x7f;
};
// These have no NaN: it becomes the largest number.
struct E2m3 : Format<2, 3, false> {
  static constexpr float kMax = 7.5f;
  static constexpr uint32_t kNan = 0x1f;
};
struct E3m2 : Format<3, 2, false> {
  static constexpr float kMax = 28.0f;
  static constexpr uint32_t kNan = 0x1f;
};
struct E2m1 : Format<2, 1, false> {
  static constexpr float kMax = 6.0f;
  static constexpr uint32_t kNan = 0x7;
};

// Any rounding of any number. Formats without infinities take no more than their kMax.
template <class To, Rounding kRounding = Rounding::nearest>
inline uint32_t narrow(double value) {
  constexpr uint64_t kInfinity = 0x7ff0000000000000u;
  const uint64_t all = std::bit_cast<uint64_t>(value);
  const bool negative = all >> 63 != 0;
  const uint64_t bits = all & ~(uint64_t{1} << 63);
  const uint32_t sign = negative ? To::kSign : 0;
  if (bits > kInfinity) return To::kNan;
  if (bits == kInfinity) return sign | To::kExponentMask;
  int exponent = static_cast<int>(bits >> 52) - 1023;
  uint64_t significand = bits & ((uint64_t{1} << 52) - 1);
  if (exponent == -1023) {
    exponent = -1022;
  } else {
    significand |= uint64_t{1} << 52;
  }
  const int below = std::max(0, 1 - To::kBias - exponent);  // binades into the subnormal numbers
  const int shift = std::min(52 - static_cast<int>(To::kMantissa) + below, 60);
  uint64_t kept = significand >> shift;
  const uint64_t rest = significand & ((uint64_t{1} << shift) - 1);
  const uint64_t tie = uint64_t{1} << (shift - 1);
  if constexpr (kRounding == Rounding::nearest) kept += rest > tie || (rest == tie && (kept & 1));
  if constexpr (kRounding == Rounding::away) kept += rest >= tie;
  if constexpr (kRounding == Rounding::down) kept += rest != 0 && negative;
  if constexpr (kRounding == Rounding::up) kept += rest != 0 && !negative;
  // The leading bit of a normal number adds one to its exponent.
  if (below == 0) kept += static_cast<uint64_t>(exponent + To::kBias - 1) << To::kMantissa;
  if (To::kInfinity && kept >= To::kExponentMask) {
    const bool to_infinity = kRounding == Rounding::nearest || kRounding == Rounding::away ||
                             kRounding == (negative ? Rounding::down : Rounding::up);
    kept = to_infinity ? To::kExponentMask : To::kExponentMask - 1;
  }
  return sign | static_cast<uint32_t>(kept);
}

// Any number of these formats is a float.
template <class From>
inline float widen(uint32_t value) {
  const uint32_t sign = (value & From::kSign) != 0 ? 0x80000000u : 0;
  const uint32_t bits = value & (From::kSign - 1);
  const uint32_t exponent = bits >> From::kMantissa;
  const uint32_t mantissa = bits & ((1u << From::kMantissa) - 1);
  if (From::kInfinity && exponent == From::kExponentMask >> From::kMantissa) {
    return std::bit_cast<float>(mantissa != 0 ? 0x7fffffffu : sign | 0x7f800000u);
  }
  if (From::kExponent == 4 && bits == From::kNan) return std::bit_cast<float>(0x7fffffffu);
  if (exponent != 0) {
    return std::bit_cast<float>(sign | (exponent + 127 - From::kBias) << 23 |
                                mantissa << (23 - From::kMantissa));
  }
  // Powers of two are exact: 2^(1 - bias - mantissa bits).
  const float unit = std::bit_cast<float>((1u + 127 - From::kBias - From::kMantissa) << 23);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(static_cast<float>(mantissa) * unit) | sign);
}
template <>
inline float widen<Bfloat>(uint32_t value) {
  return std::bit_cast<float>(value << 16);
}

// --- One value

inline float half_to_float(uint16_t value) { return widen<Half>(value); }
inline float bfloat_to_float(uint16_t value) { return widen<Bfloat>(value); }

template <Rounding kRounding = Rounding::nearest>
inline uint16_t float_to_half(float value) {
  return static_cast<uint16_t>(narrow<Half, kRounding>(value));
}
template <Rounding kRounding = Rounding::nearest>
inline uint16_t float_to_bfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  uint32_t add = 0;
  if constexpr (kRounding == Rounding::nearest) add = 0x7fff + ((bits >> 16) & 1);
  if constexpr (kRounding == Rounding::down) add = bits >> 31 != 0 ? 0xffff : 0;
  if constexpr (kRounding == Rounding::up) add = bits >> 31 != 0 ? 0 : 0xffff;
  const uint32_t rounded = (bits + add) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
}

// A float with the 10 bits of mantissa that tensor cores read of it.
template <Rounding kRounding>
inline float round_to_tf32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  uint32_t add = 0;
  if constexpr (kRounding == Rounding::nearest) add = 0xfff + ((bits >> 13) & 1);
  if constexpr (kRounding == Rounding::away) add = 0x1000;
  const uint32_t rounded = (bits + add) & ~0x1fffu;
  return std::bit_cast<float>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : rounded);
}

// --- Rows, of a multiple of 8 values

template <class From>
inline void widen_row(const uint16_t* from, float* to, unsigned count) {
#if defined(__F16C__)
  if constexpr (std::is_same_v<From, Half>) {
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (unsigned i = 0; i < count; i += 8) {
      const __m256 x = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
      _mm256_storeu_ps(to + i, _mm256_blendv_ps(x, nan, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
    }
    return;
  }
#endif
  for (unsigned i = 0; i < count; ++i) to[i] = widen<From>(from[i]);
}

template <class To, Rounding kRounding = Rounding::nearest>
inline void narrow_row(const float* from, uint16_t* to, unsigned count) {
  if constexpr (std::is_same_v<To, Bfloat>) {
    for (unsigned i = 0; i < count; ++i) to[i] = float_to_bfloat<kRounding>(from[i]);
    return;
  }
#if defined(__F16C__)
  constexpr int kMode = kRounding == Rounding::nearest ? _MM_FROUND_TO_NEAREST_INT
                        : kRounding == Rounding::zero  ? _MM_FROUND_TO_ZERO
                        : kRounding == Rounding::down  ? _MM_FROUND_TO_NEG_INF
                                                       : _MM_FROUND_TO_POS_INF;
  // Quiet NaNs keep the top of their mantissa: this one becomes 0x7fff.
  const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  for (unsigned i = 0; i < count; i += 8) {
    const __m256 x = _mm256_loadu_ps(from + i);
    const __m256 y = _mm256_blendv_ps(x, nan, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(y, kMode));
  }
#else
  for (unsigned i = 0; i < count; ++i) to[i] = float_to_half<kRounding>(from[i]);
#endif
}

}  // namespace longclock::emulator
