// SPDX-License-Identifier: Apache-2.0
// Rows as cvt sees them: its registers may be wider than its types.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "half.h"
#include "ops_common.h"

namespace longclock::emulator {

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, Half> || std::is_same_v<T, Bfloat>;
template <class T>
constexpr bool kIsFloat = kIsHalf<T> || std::is_floating_point_v<T>;

template <class T>
struct CellOf {
  using type = T;
};
template <>
struct CellOf<int8_t> {
  using type = int16_t;
};
template <>
struct CellOf<uint8_t> {
  using type = uint16_t;
};
template <>
struct CellOf<Half> {
  using type = uint16_t;
};
template <>
struct CellOf<Bfloat> {
  using type = uint16_t;
};
// What a register of the type's own width holds; 8-bit types have 16-bit registers.
template <class T>
using Cell = typename CellOf<T>::type;

// The row of a source, or its low parts in `spare`.
template <class C>
inline const C* source_row(const Warp& w, const Operand& operand, C* spare) {
  if (operand.bits <= kBits<C>) return w.source<C>(operand);
  const unsigned step = operand.bits / kBits<C>;
  const C* wide = w.source<C>(operand);  // little-endian: the low part comes first
  for (unsigned l = 0; l < kWarpLanes; ++l) spare[l] = wide[l * step];
  return spare;
}

template <class To, class C>
inline void store_wider(Warp& w, const Operand& operand, const C* values, uint32_t lanes) {
  To wide[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    if constexpr (std::is_floating_point_v<C>) {
      wide[l] = static_cast<To>(std::bit_cast<UnsignedOf<sizeof(C)>>(values[l]));
    } else {
      wide[l] = static_cast<To>(values[l]);  // extends the sign of signed types
    }
  }
  store_lanes(w.result<To>(operand), wide, lanes);
}

template <class C>
inline void store_row(Warp& w, const Operand& operand, const C* values, uint32_t lanes) {
  if (operand.bits <= kBits<C>) {
    store_lanes(w.result<C>(operand), values, lanes);
  } else if (operand.bits == 32) {
    store_wider<uint32_t>(w, operand, values, lanes);
  } else {
    store_wider<uint64_t>(w, operand, values, lanes);
  }
}

// f32 for what fits, f64 else.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class From>
inline void load_wide(const Warp& w, const Operand& operand, Wide<From>* to) {
  Cell<From> spare[kWarpLanes];
  const Cell<From>* row = source_row(w, operand, spare);
  if constexpr (kIsHalf<From>) {
    widen_row<From>(row, to, kWarpLanes);
  } else {
    std::copy_n(row, kWarpLanes, to);
  }
}

// Rounds to an integer: .rni, .rzi, .rmi, .rpi.
template <Rounding kRounding, class T>
inline T to_integral(T x) {
  if constexpr (kRounding == Rounding::nearest) return std::nearbyint(x);
  if constexpr (kRounding == Rounding::zero) return std::trunc(x);
  if constexpr (kRounding == Rounding::down) return std::floor(x);
  return std::ceil(x);
}

// Out of range: the nearest integer. NaN: 0, or the top bit alone, as cvt has it.
template <class To, bool kNanIsZero, class T>
inline To saturate_to_integer(T x) {
  using Limits = std::numeric_limits<To>;
  constexpr To kNan =
      kNanIsZero ? To{0} : static_cast<To>(std::make_unsigned_t<To>{1} << (8 * sizeof(To) - 1));
  if constexpr (sizeof(To) <= 4) {
    double y = x;
    y = y > static_cast<double>(Limits::min()) ? y : static_cast<double>(Limits::min());
    y = y < static_cast<double>(Limits::max()) ? y : static_cast<double>(Limits::max());
    // Through int32_t, which vector instructions convert to.
    constexpr double kShift = std::is_same_v<To, uint32_t> ? 0x1p31 : 0;
    const uint32_t bits =
        static_cast<uint32_t>(static_cast<int32_t>(y - kShift)) + static_cast<uint32_t>(kShift);
    return x == x ? static_cast<To>(bits) : kNan;
  } else {
    constexpr T kEnd = std::is_signed_v<To> ? T(0x1p63) : T(0x1p64);
    constexpr T kBegin = std::is_signed_v<To> ? T(-0x1p63) : T(0);
    if (x != x) return kNan;
    if (x >= kEnd) return Limits::max();
    if (x < kBegin) return Limits::min();
    return static_cast<To>(x);
  }
}

template <class To, class From>
inline To saturate_integer(From x) {
  using Limits = std::numeric_limits<To>;
  if (std::cmp_less(x, Limits::min())) return Limits::min();
  if (std::cmp_greater(x, Limits::max())) return Limits::max();
  return static_cast<To>(x);
}

// A 64-bit integer as a double that is exact or odd, and so may be rounded to less again.
template <class From>
inline double to_odd_double(From x) {
  if constexpr (sizeof(From) < 8) {
    return static_cast<double>(x);
  } else {
    const bool negative = x < 0;
    const uint64_t bits =
        negative ? uint64_t{0} - static_cast<uint64_t>(x) : static_cast<uint64_t>(x);
    // Twelve bits may be too many: the last that stays collects them.
    const uint64_t low = bits & 0xfff;
    const uint64_t kept = bits < (uint64_t{1} << 53) || low == 0 ? bits : (bits - low) | 0x1000;
    const double value = static_cast<double>(kept);
    return negative ? -value : value;
  }
}

}  // namespace longclock::emulator
