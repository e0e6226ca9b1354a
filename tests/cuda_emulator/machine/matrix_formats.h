// SPDX-License-Identifier: Apache-2.0
// Element formats of matrices: registers to arrays of float, double or integers, and sums back. A
// register is decoded as a whole: what lies in its 128 (256) bytes, in the order of memory.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__F16C__) && defined(__AVX2__)
#include <immintrin.h>
#endif

#include "warp.h"

namespace longclock::emulator {

// `row`: of one register. Writes every element of its 32 lanes.
template <class Value>
using DecodeRow = void (*)(const std::byte* row, Value* out);

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31, fraction = half & 0x3ff;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(fraction), -24);
    return sign != 0 ? -value : value;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

inline void decode_f16(const std::byte* row, float* out) {
#if defined(__F16C__) && defined(__AVX2__)
  for (unsigned i = 0; i < 64; i += 8) {
    __m128i halves;
    std::memcpy(&halves, row + i * 2, 16);
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
#else
  uint16_t halves[64];
  std::memcpy(halves, row, sizeof(halves));
  for (unsigned i = 0; i < 64; ++i) out[i] = half_to_float(halves[i]);
#endif
}

inline void decode_bf16(const std::byte* row, float* out) {
  uint16_t halves[64];
  std::memcpy(halves, row, sizeof(halves));
  for (unsigned i = 0; i < 64; ++i)
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(halves[i]) << 16);
}

// The lower 13 bits take no part.
inline void decode_tf32(const std::byte* row, float* out) {
  uint32_t words[kWarpLanes];
  std::memcpy(words, row, sizeof(words));
  for (unsigned i = 0; i < kWarpLanes; ++i) out[i] = std::bit_cast<float>(words[i] & ~0x1fffu);
}

inline void decode_f32(const std::byte* row, float* out) { std::memcpy(out, row, 128); }
inline void decode_f64(const std::byte* row, double* out) { std::memcpy(out, row, 256); }
inline void decode_words(const std::byte* row, uint32_t* out) { std::memcpy(out, row, 128); }
inline void decode_s32(const std::byte* row, int32_t* out) { std::memcpy(out, row, 128); }

// The upper byte of a half.
inline void decode_e5m2(const std::byte* row, float* out) {
  for (unsigned i = 0; i < 128; ++i)
    out[i] = half_to_float(static_cast<uint16_t>(std::to_integer<unsigned>(row[i]) << 8));
}

// No infinities; all ones is NaN; bias 7.
inline void decode_e4m3(const std::byte* row, float* out) {
  for (unsigned i = 0; i < 128; ++i) {
    const uint32_t byte = std::to_integer<uint32_t>(row[i]);
    const uint32_t exponent = (byte >> 3) & 15, fraction = byte & 7;
    float value = exponent == 0 ? static_cast<float>(fraction) * 0x1p-9f
                                : std::bit_cast<float>((exponent + 120) << 23 | fraction << 20);
    if ((byte & 0x7f) == 0x7f) value = std::bit_cast<float>(0x7fc00000u);
    out[i] = (byte & 0x80) != 0 ? -value : value;
  }
}

template <class Byte>
inline void decode_bytes(const std::byte* row, int32_t* out) {
  Byte bytes[128];
  std::memcpy(bytes, row, sizeof(bytes));
  for (unsigned i = 0; i < 128; ++i) out[i] = bytes[i];
}

template <bool kSigned>
inline void decode_nibbles(const std::byte* row, int32_t* out) {
  for (unsigned i = 0; i < 128; ++i) {
    const int32_t byte = std::to_integer<int32_t>(row[i]);
    const int32_t low = byte & 15, high = byte >> 4;
    out[2 * i] = kSigned ? (low ^ 8) - 8 : low;
    out[2 * i + 1] = kSigned ? (high ^ 8) - 8 : high;
  }
}

// Rounds once, to nearest even. NaN becomes the one that tensor cores make.
inline uint32_t to_f32(double value) {
  return value != value ? 0x7fffffffu : std::bit_cast<uint32_t>(static_cast<float>(value));
}

// By way of a float that is rounded to odd, which keeps what the second rounding must know.
inline uint16_t to_f16(double value) {
  if (value != value) return 0x7fff;
  const float near = static_cast<float>(value);
  uint32_t bits = std::bit_cast<uint32_t>(near);
  if (static_cast<double>(near) != value && (bits & 1) == 0)
    bits += std::fabs(static_cast<double>(near)) > std::fabs(value) ? ~0u : 1u;
#if defined(__F16C__) && defined(__AVX2__)
  return static_cast<uint16_t>(_cvtss_sh(std::bit_cast<float>(bits), _MM_FROUND_TO_NEAREST_INT));
#else
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and more
  uint32_t fraction, shift;
  if (magnitude >= 0x38800000) {  // a normal half
    fraction = magnitude - 0x38000000;
    shift = 13;
  } else {
    const uint32_t exponent = magnitude >> 23;
    if (exponent < 102) return static_cast<uint16_t>(sign);
    fraction = (magnitude & 0x7fffff) | 0x800000;
    shift = 126 - exponent;
  }
  const uint32_t half = 1u << (shift - 1), rest = fraction & ((1u << shift) - 1);
  uint32_t result = fraction >> shift;
  if (rest > half || (rest == half && (result & 1) != 0)) ++result;
  return static_cast<uint16_t>(sign | result);
#endif
}

}  // namespace longclock::emulator
