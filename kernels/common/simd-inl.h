// SPDX-License-Identifier: Apache-2.0
// Vectors of one SIMD level. The including .cpp defines LONGCLOCK_SIMD_NAMESPACE (scalar, avx2 or
// avx512) and is compiled with that level's flags. Include guards only: one level a .cpp.
//
// Vectors are the compiler's own vector types, so + - * and comparisons are operators; what needs
// an instruction of its own is a function: fused multiply-add here, loads and stores of every dtype
// in memory-inl.h, masks and what crosses lanes in lanes-inl.h. The scalar level is 4 lanes of
// plain code that any compiler turns into what its baseline has.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vf __attribute__((vector_size(kLanes * 4)));
typedef int32_t Vi __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Vu __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Vh __attribute__((vector_size(kLanes * 2)));

// Vectors of as many bytes as the others, with half the lanes.
inline constexpr int kWideLanes = kLanes / 2;
typedef int64_t Vl __attribute__((vector_size(kLanes * 4)));
typedef uint64_t Vq __attribute__((vector_size(kLanes * 4)));
inline constexpr int kByteLanes = 4 * kLanes;
typedef double Vd __attribute__((vector_size(kLanes * 4)));
typedef uint8_t Vb __attribute__((vector_size(kByteLanes)));

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

inline Vf splat(float value) {
  return value - Vf{};
}  // exact, -0 included: no code but the broadcast

// a * b + c: one rounding at the levels that have the instruction, in vector and scalar code alike.
inline float fma(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
inline Vf fma(Vf a, Vf b, Vf c) {
#if defined(__AVX512F__)
  return (Vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
inline Vd fma(Vd a, Vd b, Vd c) {
#if defined(__AVX512F__)
  return (Vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (Vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}
inline Vd magnitude(Vd v) { return (Vd)((Vq)v & ~(uint64_t{1} << 63)); }

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
