// SPDX-License-Identifier: Apache-2.0
// What select functions share: the names of PTX types and how to get from one to a C++ type.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <type_traits>

#include "decode.h"
#include "lanes.h"

namespace longclock::emulator {

// Calls f.operator()<T>() with the C++ type of .u16 .. .s64, or of .b16 .. .b64 as unsigned.
// nullptr for any other type.
template <class F>
Handler for_integer(std::string_view type, F f) {
  if (type.size() != 3) return nullptr;
  const std::string_view bits = type.substr(1);
  const bool is_signed = type[0] == 's';
  if (!is_signed && type[0] != 'u' && type[0] != 'b') return nullptr;
  if (bits == "16")
    return is_signed ? f.template operator()<int16_t>() : f.template operator()<uint16_t>();
  if (bits == "32")
    return is_signed ? f.template operator()<int32_t>() : f.template operator()<uint32_t>();
  if (bits == "64")
    return is_signed ? f.template operator()<int64_t>() : f.template operator()<uint64_t>();
  return nullptr;
}

template <class T>
constexpr unsigned kBits = 8 * sizeof(T);

// A value and which of its bits nobody wrote.
template <class T>
struct Shadowed {
  T value;
  T bits;
};

// The undefined bits of a source in one lane.
template <class T>
inline T undefined_bits(Warp& w, const Operand& operand, unsigned lane) {
  if ((w.undefined_lanes(operand) >> lane & 1) == 0) return 0;
  return w.bits_of<T>(operand)[lane];
}

// Sets the definedness of result `which` to f(lane), its undefined bits.
template <class R, class F>
inline void define_result(Warp& w, const Operand& result, uint32_t lanes, F f) {
  R bits[kWarpLanes];
  uint32_t undefined = 0;
  for_lanes(lanes, [&](unsigned l) {
    bits[l] = f(l);
    undefined |= static_cast<uint32_t>(bits[l] != 0) << l;
  });
  w.mark(result, undefined, lanes);
  for_lanes(undefined, [&](unsigned l) { w.bits_of<R>(result)[l] = bits[l]; });
}

// The same with f(Shadowed<A>...) of sources from operands[1] on, of unsigned types.
template <class R, class... A, class F>
inline void define_lanes(Warp& w, const Instruction& in, uint32_t lanes, F f) {
  define_result<R>(w, in.operands[0], lanes, [&](unsigned l) {
    return [&]<size_t... I>(std::index_sequence<I...>) {
      return static_cast<R>(f(Shadowed<A>{w.source<A>(in.operands[1 + I])[l],
                                          undefined_bits<A>(w, in.operands[1 + I], l)}...));
    }(std::index_sequence_for<A...>{});
  });
}

// Sums and products carry upwards only: bits below the lowest undefined one are defined.
template <class T, unsigned kSources>
void define_upwards(Warp& w, const Instruction& in, uint32_t lanes) {
  using U = std::make_unsigned_t<T>;
  define_result<U>(w, in.operands[0], lanes, [&](unsigned l) {
    U bits = 0;
    for (unsigned s = 1; s <= kSources; ++s)
      bits = static_cast<U>(bits | undefined_bits<U>(w, in.operands[s], l));
    return static_cast<U>(bits | (U{0} - bits));
  });
}

}  // namespace longclock::emulator
