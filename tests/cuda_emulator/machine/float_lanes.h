// SPDX-License-Identifier: Apache-2.0
// What floating-point instructions share: rounding modes, flushing, canonical NaNs, minima, and
// loops over registers that hold one value or several. Compile with -ffp-contract=off.
#pragma once

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "decode.h"
#include "lanes.h"

namespace longclock::emulator {

// .rn, .rz, .rm, .rp, .rna
enum class Rounding : uint8_t { nearest, zero, down, up, away };

template <size_t kBytes>
using UnsignedOf = std::conditional_t<
    kBytes == 1, uint8_t,
    std::conditional_t<kBytes == 2, uint16_t, std::conditional_t<kBytes == 4, uint32_t, uint64_t>>>;

// Fills `values` by `fill` in the host's own rounding mode of that kind. The compiler does not know
// that arithmetic depends on the mode: the barriers pin the memory that it goes from and to.
template <Rounding kRounding, class T, class F>
inline void in_rounding_mode(T* values, F fill) {
  if constexpr (kRounding == Rounding::nearest) {
    fill();
  } else {
    std::fesetround(kRounding == Rounding::zero   ? FE_TOWARDZERO
                    : kRounding == Rounding::down ? FE_DOWNWARD
                                                  : FE_UPWARD);
    asm volatile("" : : "r"(values) : "memory");
    fill();
    asm volatile("" : : "r"(values) : "memory");
    std::fesetround(FE_TONEAREST);
  }
}

// result = f(sources...) in each of the kParts values of type T that a register holds.
template <Rounding kRounding, class T, unsigned kParts, size_t kSources, class F>
inline void map_parts(Warp& w, const Instruction& in, uint32_t lanes, F f) {
  using Register = UnsignedOf<sizeof(T) * kParts>;
  alignas(64) T values[kWarpLanes * kParts];
  const T* rows[kSources];
  for (size_t s = 0; s < kSources; ++s) rows[s] = w.source<T>(in.operands[1 + s]);
  in_rounding_mode<kRounding>(values, [&] {
    [&]<size_t... I>(std::index_sequence<I...>) {
      for (unsigned i = 0; i < kWarpLanes * kParts; ++i) values[i] = f(rows[I][i]...);
    }(std::make_index_sequence<kSources>{});
  });
  alignas(64) Register packed[kWarpLanes];
  std::memcpy(packed, values, sizeof(packed));
  store_lanes(w.result<Register>(in.operands[0]), packed, lanes);
}

// Subnormal numbers to zeros of their sign.
inline float flush(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits);
}
inline double flush(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  return std::bit_cast<double>((bits & 0x7ff0000000000000u) == 0 ? bits & 0x8000000000000000u
                                                                 : bits);
}

// 32-bit instructions make one NaN only; 64-bit ones keep that of their source.
inline float canonical(float x) { return x == x ? x : std::bit_cast<float>(0x7fffffffu); }
inline double canonical(double x) { return x; }

// .sat: NaN and -0 become +0.
template <class T>
inline T saturate(T x) {
  return x > T(0) ? (x < T(1) ? x : T(1)) : T(0);
}
// .relu: a NaN stays.
template <class T>
inline T rectify(T x) {
  return x <= T(0) ? T(0) : x;
}

template <class T>
inline T magnitude(T x) {
  using Bits = UnsignedOf<sizeof(T)>;
  return std::bit_cast<T>(static_cast<Bits>(std::bit_cast<Bits>(x) & (~Bits{0} >> 1)));
}
template <class T>
inline T opposite(T x) {
  using Bits = UnsignedOf<sizeof(T)>;
  return std::bit_cast<T>(static_cast<Bits>(std::bit_cast<Bits>(x) ^ ~(~Bits{0} >> 1)));
}
// `value` with the sign of `sign`.
template <class T>
inline T with_sign(T value, T sign) {
  using Bits = UnsignedOf<sizeof(T)>;
  constexpr Bits kMagnitude = ~Bits{0} >> 1;
  return std::bit_cast<T>(static_cast<Bits>((std::bit_cast<Bits>(value) & kMagnitude) |
                                            (std::bit_cast<Bits>(sign) & ~kMagnitude)));
}

// -0 is less than +0. One NaN loses, or wins (.NaN).
template <bool kMaximum, bool kNan, class T>
inline T extremum(T a, T b) {
  using Bits = UnsignedOf<sizeof(T)>;
  const Bits x = std::bit_cast<Bits>(a), y = std::bit_cast<Bits>(b);
  // Equal numbers differ in the sign of zero at most.
  const T equal = std::bit_cast<T>(static_cast<Bits>(kMaximum ? x & y : x | y));
  const T greater = a > b ? a : b, less = a < b ? a : b;
  T result = a == b ? equal : kMaximum ? greater : less;
  constexpr T kCanonical = std::numeric_limits<T>::quiet_NaN();
  if constexpr (kNan) {
    result = a != a || b != b ? kCanonical : result;
  } else {
    result = a != a ? b : b != b ? a : result;
  }
  return canonical(result);
}

// A sum rounded to odd: exact, or the neighbour whose last bit is 1. Rounding it again, to at least
// two bits less, gives the sum rounded once. Needs sums that neither overflow nor underflow.
template <class T>
inline T add_to_odd(T a, T b) {
  using Bits = UnsignedOf<sizeof(T)>;
  const T sum = a + b;
  const T back = sum - a;
  const T error = (a - (sum - back)) + (b - back);  // exact; NaN where the sum is not finite
  const Bits bits = std::bit_cast<Bits>(sum);
  const bool inexact = (error > T(0)) | (error < T(0));
  const bool outwards = (error > T(0)) == (sum > T(0));
  const Bits odd = outwards ? bits | 1 : bits - 1;
  return std::bit_cast<T>(inexact & ((bits & 1) == 0) ? odd : bits);
}

// --- For select functions: a choice made once becomes a template argument.

template <class F>
inline Handler with_flag(bool flag, F f) {
  return flag ? f(std::true_type{}) : f(std::false_type{});
}

// f(std::integral_constant<Rounding, ...>), of .rn, .rz, .rm and .rp; nearest without any.
template <class F>
inline Handler with_rounding(const Decode& d, F f) {
  if (d.has("rz")) return f(std::integral_constant<Rounding, Rounding::zero>{});
  if (d.has("rm")) return f(std::integral_constant<Rounding, Rounding::down>{});
  if (d.has("rp")) return f(std::integral_constant<Rounding, Rounding::up>{});
  return f(std::integral_constant<Rounding, Rounding::nearest>{});
}

// The result in operand 0, everything else a source.
inline void lay_out(Decode& d, unsigned bits, Unit unit) {
  d.result(0, bits);
  for (size_t i = 1; i < d.operands(); ++i) d.source(i, bits);
  d.out.unit = unit;
}

// A part of the result is undefined where that part of some source is.
template <class T, unsigned kParts>
inline void define_parts(Warp& w, const Instruction& in, uint32_t lanes) {
  using Register = UnsignedOf<sizeof(T) * kParts>;
  Register bits[kWarpLanes] = {};
  for (unsigned s = in.results; s < in.count; ++s) {
    const uint32_t undefined = w.undefined_lanes(in.operands[s]);
    if (undefined == 0) continue;
    const Register* row = w.bits_of<Register>(in.operands[s]);
    for_lanes(undefined, [&](unsigned l) { bits[l] |= row[l]; });
  }
  uint32_t undefined = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    for (unsigned p = 0; p < kParts; ++p) {
      const Register part = static_cast<Register>(static_cast<Register>(static_cast<T>(~T{0}))
                                                  << (8 * sizeof(T) * p));
      if ((bits[l] & part) != 0) bits[l] |= part;
    }
    undefined |= static_cast<uint32_t>(bits[l] != 0) << l;
  }
  w.mark(in.operands[0], undefined, lanes);
  store_lanes(w.bits_of<Register>(in.operands[0]), bits, lanes);
}

}  // namespace longclock::emulator
