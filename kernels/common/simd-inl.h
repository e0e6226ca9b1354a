// SPDX-License-Identifier: Apache-2.0
// Vectors of one SIMD level. The including .cpp defines LONGCLOCK_SIMD_NAMESPACE (scalar, avx2 or
// avx512) and is compiled with that level's flags. Include guards only: one level a .cpp.
//
// Vectors are the compiler's own vector types, so + - * and comparisons are operators; what needs
// an instruction of its own (fused multiply-add, half conversion, masks) is a function. The scalar
// level is 4 lanes of plain code that any compiler turns into what its baseline has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "longclock/common/dtype.h"

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
  const Vi lanes = Vi{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + first;
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

// Lanes in blocks of h: sums each vector's neighbouring blocks, x's into the even ones, y's odd.
template <int h, std::size_t... lane>
inline Vf add_blocks(Vf x, Vf y, std::index_sequence<lane...>) {
  return LONGCLOCK_SHUFFLE(x, y, (lane / h % 2 == 0 ? int(lane) : int(lane) - h + kLanes)...) +
         LONGCLOCK_SHUFFLE(x, y, (lane / h % 2 == 0 ? int(lane) + h : int(lane) + kLanes)...);
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

// Nothing in memory moves across it: keeps row loads in row order, which is what
// the hardware prefetcher follows.
inline void end_of_row() { __asm__ volatile("" ::: "memory"); }

// Makes a pointer that a loop moves on opaque: GCC otherwise keeps one for every turn of an
// unrolled loop, more than there are registers.
template <class T>
inline void one_pointer(T*& pointer) {
  __asm__("" : "+r"(pointer));
}

// Where it is called, a function that only prefetches has an effect: else GCC drops calls of it.
inline void has_effect() { __asm__ volatile(""); }

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
