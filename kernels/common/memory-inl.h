// SPDX-License-Identifier: Apache-2.0
// Between memory and vectors: elements of any dtype as floats, integers as wide lanes, and large
// outputs past the caches.
#pragma once

#include "longclock/common/dtype.h"
#include "longclock/common/simd-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline float to_float(float value) { return value; }
inline float to_float(BFloat16 value) { return bits_to_float(uint32_t{value.bits} << 16); }
inline float to_float(Float16 value) {
#if defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const uint32_t rest = value.bits & 0x7fffu;
  if (rest >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest < 0x400u) {  // zero or subnormal: rest * 2^-24, exact
    const float magnitude = static_cast<float>(rest) * 5.9604644775390625e-8f;
    return bits_to_float(sign | float_to_bits(magnitude));
  }
  return bits_to_float(sign | ((rest << 13) + 0x38000000u));
#endif
}

// Nearest, ties to even.
inline void from_float(float value, float* out) { *out = value; }
inline void from_float(float value, BFloat16* out) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    out->bits = static_cast<uint16_t>(bits >> 16 | 0x40u);
  } else {
    out->bits = static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
}
inline void from_float(float value, Float16* out) {
#if defined(__F16C__)
  out->bits = static_cast<uint16_t>(_cvtss_sh(value, 0));
#else
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t rest = bits & 0x7fffffffu;
  uint32_t half;
  if (rest > 0x7f800000u) {
    half = 0x7e00u | (rest >> 13 & 0x3ffu);
  } else if (rest >= 0x477ff000u) {  // rounds to 2^16 or more
    half = 0x7c00u;
  } else if (rest < 0x38800000u) {  // subnormal: adding 0.5 puts 2^-24 at the last mantissa bit
    half = float_to_bits(bits_to_float(rest) + 0.5f) - 0x3f000000u;
  } else {
    half = (rest - 0x38000000u + 0xfffu + (rest >> 13 & 1u)) >> 13;
  }
  out->bits = static_cast<uint16_t>(sign | half);
#endif
}

template <class V, class T>
inline V load_raw(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}

inline Vf load(const float* from) { return load_raw<Vf>(from); }
inline Vf load(const BFloat16* from) {
#if defined(__AVX512F__)  // GCC makes two halves of the conversion below
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Vf)((Vu)_mm512_maskz_cvtepu16_epi32(0xffff, halves) << 16);
#elif defined(__AVX2__)  // and four instructions of this one
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Vf)((Vu)_mm256_cvtepu16_epi32(halves) << 16);
#else
  return (Vf)(__builtin_convertvector(load_raw<Vh>(from), Vu) << 16);
#endif
}
inline Vf load(const Float16* from) {
#if defined(__AVX512F__)
  return (Vf)_mm512_maskz_cvtph_ps(0xffff,
                                   _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
  return (Vf)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Vf v;
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = to_float(from[lane]);
  return v;
#endif
}
template <class Query>
inline Vf load(const Int8By<Query>* from) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Vf)_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return (Vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#else
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  return __builtin_convertvector(load_raw<Bytes>(from), Vf);
#endif
}
// The first `count` < kLanes elements, then zeros; reads nothing beyond them.
template <class T>
inline Vf load_partial(const T* from, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (Vf)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), from);
  }
#endif
  T padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return load(padded);
}

inline void store(Vf v, float* to) { std::memcpy(to, &v, sizeof(v)); }
template <class T>
inline void store(Vf v, T* to) {
  for (int lane = 0; lane < kLanes; ++lane) from_float(v[lane], to + lane);
}

inline Vq load_wide(const int64_t* from) { return load_raw<Vq>(from); }
inline Vq load_wide(const int32_t* from) {
  typedef int32_t Half __attribute__((vector_size(kWideLanes * 4)));
  return (Vq) __builtin_convertvector(load_raw<Half>(from), Vl);
}
// Lanes of the lower half (0) or the upper half (1), without their signs.
inline Vq wide_half(Vi v, int half) {
  typedef uint32_t Half __attribute__((vector_size(kWideLanes * 4)));
  Half lanes;
  std::memcpy(&lanes, reinterpret_cast<const char*>(&v) + half * sizeof(lanes), sizeof(lanes));
  return __builtin_convertvector(lanes, Vq);
}
// The first n <= kWideLanes lanes, which are integers in [0, 2^31).
inline void store_integers(Vd v, int64_t n, int32_t* to) {
  typedef int32_t Half __attribute__((vector_size(kWideLanes * 4)));
  const Half half = __builtin_convertvector(v, Half);
  if (n == kWideLanes) {
    std::memcpy(to, &half, sizeof(half));
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = half[i];
  }
}
inline void store_integers(Vd v, int64_t n, int64_t* to) {
  const Vq integers = (Vq)(v + 0x1p52) & ((uint64_t{1} << 52) - 1);
  if (n == kWideLanes) {
    std::memcpy(to, &integers, sizeof(integers));
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<int64_t>(integers[i]);
  }
}

// Copies n values past the caches, to where they will not be read soon: a large output then costs
// one write, and no read of what it replaces. end_stream() must follow before others may read.
// Either may be null where n is 0.
inline void stream(const float* from, int64_t n, float* to) {
#if defined(__AVX2__)
  const auto aligned = [](float* at) { return reinterpret_cast<uintptr_t>(at) % sizeof(Vf) == 0; };
  int64_t i = 0;
  for (; i < n && !aligned(to + i); ++i) to[i] = from[i];
  for (; i + kLanes <= n; i += kLanes) {
#if defined(__AVX512F__)
    _mm512_stream_ps(to + i, (__m512)load(from + i));
#else
    _mm256_stream_ps(to + i, (__m256)load(from + i));
#endif
  }
  for (; i < n; ++i) to[i] = from[i];
#else
  if (n > 0) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
#endif
}
inline void end_stream() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
