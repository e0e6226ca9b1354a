// SPDX-License-Identifier: Apache-2.0
// Integer arithmetic. Wraps around as hardware does: computed on unsigned types.
#include <algorithm>
#include <bit>
#include <limits>

#include "ops_common.h"

namespace longclock::emulator {
namespace {

template <class T>
using Wide = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;
template <class T>
using Bits = std::make_unsigned_t<T>;

template <class T>
T wrap_add(T a, T b) {
  return static_cast<T>(static_cast<Bits<T>>(a) + static_cast<Bits<T>>(b));
}
template <class T>
T wrap_sub(T a, T b) {
  return static_cast<T>(static_cast<Bits<T>>(a) - static_cast<Bits<T>>(b));
}
template <class T>
T low_product(T a, T b) {
  return static_cast<T>(uint64_t{static_cast<Bits<T>>(a)} * uint64_t{static_cast<Bits<T>>(b)});
}
template <class T>
T high_product(T a, T b) {
  return static_cast<T>(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b) >> kBits<T>);
}
template <class T>
T saturate(int64_t value) {
  return static_cast<T>(
      std::clamp<int64_t>(value, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
}

// Results and sources of `sources` operands of one width.
void lay_out(Decode& d, unsigned bits, size_t sources) {
  d.out.unit = Unit::integer;
  d.result(0, bits);
  for (size_t i = 1; i <= sources; ++i) d.source(i, bits);
}

// r = f(a, b): the usual form.
template <class T, class F>
void binary(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<T, T, T>(w, in, lanes, F());
}
template <class T, class F>
void unary(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<T, T>(w, in, lanes, F());
}
template <class T, class F>
void ternary(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<T, T, T, T>(w, in, lanes, F());
}

// --- Sums with a carry, of .u32, .s32, .u64, .s64

// r = a + b (+ carry), a - b (- borrow), or a * b + c (+ carry); the flag is a word of the warp.
template <class T, bool kSubtract, bool kIn, bool kOut>
void add_carry(Warp& w, const Instruction& in, uint32_t lanes) {
  const T* a = w.source<T>(in.operands[1]);
  const T* b = w.source<T>(in.operands[2]);
  T values[kWarpLanes];
  uint32_t carries = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const unsigned flag = kIn ? w.carry >> l & 1 : 0;
    const auto wide = kSubtract ? static_cast<unsigned __int128>(a[l]) - b[l] - flag
                                : static_cast<unsigned __int128>(a[l]) + b[l] + flag;
    values[l] = static_cast<T>(wide);
    carries |= static_cast<uint32_t>(wide >> kBits<T> & 1) << l;
  }
  store_lanes(w.result<T>(in.operands[0]), values, lanes);
  if (kOut) w.carry = (w.carry & ~lanes) | (carries & lanes);
}

template <class T, bool kHigh, bool kIn, bool kOut>
void mad_carry(Warp& w, const Instruction& in, uint32_t lanes) {
  using U = Bits<T>;
  const T *a = w.source<T>(in.operands[1]), *b = w.source<T>(in.operands[2]);
  const U* c = w.source<U>(in.operands[3]);
  U values[kWarpLanes];
  uint32_t carries = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const unsigned flag = kIn ? w.carry >> l & 1 : 0;
    const U product = static_cast<U>(kHigh ? high_product(a[l], b[l]) : low_product(a[l], b[l]));
    const unsigned __int128 wide = static_cast<unsigned __int128>(product) + c[l] + flag;
    values[l] = static_cast<U>(wide);
    carries |= static_cast<uint32_t>(wide >> kBits<U> & 1) << l;
  }
  store_lanes(w.result<U>(in.operands[0]), values, lanes);
  if (kOut) w.carry = (w.carry & ~lanes) | (carries & lanes);
}

template <bool kSubtract, bool kIn>
Handler select_carry(Decode& d) {
  const bool out = d.has("cc");
  return for_integer(d.type(), [&]<class T>() -> Handler {
    using U = Bits<T>;
    if constexpr (sizeof(T) < 4) {
      return nullptr;
    } else {
      lay_out(d, kBits<T>, 2);
      return out ? add_carry<U, kSubtract, kIn, true> : add_carry<U, kSubtract, kIn, false>;
    }
  });
}

template <bool kIn>
Handler mad_with_carry(Decode& d) {
  const bool out = d.has("cc"), high = d.has("hi");
  return for_integer(d.type(), [&]<class T>() -> Handler {
    if constexpr (sizeof(T) < 4) {
      return nullptr;
    } else {
      lay_out(d, kBits<T>, 3);
      if (high) return out ? mad_carry<T, true, kIn, true> : mad_carry<T, true, kIn, false>;
      return out ? mad_carry<T, false, kIn, true> : mad_carry<T, false, kIn, false>;
    }
  });
}

// --- Sums

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return wrap_add(a, b);
  }
};
struct Sub {
  template <class T>
  T operator()(T a, T b) const {
    return wrap_sub(a, b);
  }
};
struct AddSaturated {
  int32_t operator()(int32_t a, int32_t b) const { return saturate<int32_t>(int64_t{a} + b); }
};
struct SubSaturated {
  int32_t operator()(int32_t a, int32_t b) const { return saturate<int32_t>(int64_t{a} - b); }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return std::min(a, b);
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};

// Two 16-bit halves at once.
template <class T, class F>
struct Halves {
  uint32_t operator()(uint32_t a, uint32_t b) const {
    const F f;
    const auto low = static_cast<uint16_t>(f(static_cast<T>(a), static_cast<T>(b)));
    const auto high = static_cast<uint16_t>(f(static_cast<T>(a >> 16), static_cast<T>(b >> 16)));
    return static_cast<uint32_t>(high) << 16 | low;
  }
};

template <class F>
Handler select_halves(Decode& d) {
  lay_out(d, 32, 2);
  return d.type() == "s16x2" ? binary<uint32_t, Halves<int16_t, F>>
                             : binary<uint32_t, Halves<uint16_t, F>>;
}

template <class F, class Saturated, bool kSubtract>
Handler select_sum(Decode& d) {
  if (d.type() == "u16x2" || d.type() == "s16x2") return select_halves<F>(d);
  if (d.has("cc")) return select_carry<kSubtract, false>(d);
  return for_integer(d.type(), [&]<class T>() -> Handler {
    lay_out(d, kBits<T>, 2);
    if (d.has("sat")) return binary<int32_t, Saturated>;
    d.out.define = define_upwards<T, 2>;
    return binary<T, F>;
  });
}

template <class F>
Handler select_extreme(Decode& d) {
  if (d.type() == "u16x2" || d.type() == "s16x2") return select_halves<F>(d);
  const bool relu = d.has("relu");
  return for_integer(d.type(), [&]<class T>() -> Handler {
    lay_out(d, kBits<T>, 2);
    if (relu) {
      return [](Warp& w, const Instruction& in, uint32_t lanes) {
        map_lanes<T, T, T>(w, in, lanes, [](T a, T b) { return std::max<T>(F()(a, b), 0); });
      };
    }
    return binary<T, F>;
  });
}

// --- Products

template <class T>
void mul_wide(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<Wide<T>, T, T>(w, in, lanes, [](T a, T b) {
    return static_cast<Wide<T>>(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b));
  });
}
template <class T>
void mad_wide(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<Wide<T>, T, T, Wide<T>>(w, in, lanes, [](T a, T b, Wide<T> c) {
    return wrap_add(static_cast<Wide<T>>(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)), c);
  });
}
struct MulLow {
  template <class T>
  T operator()(T a, T b) const {
    return low_product(a, b);
  }
};
struct MulHigh {
  template <class T>
  T operator()(T a, T b) const {
    return high_product(a, b);
  }
};
struct MadLow {
  template <class T>
  T operator()(T a, T b, T c) const {
    return wrap_add(low_product(a, b), c);
  }
};
struct MadHigh {
  template <class T>
  T operator()(T a, T b, T c) const {
    return wrap_add(high_product(a, b), c);
  }
};
struct MadHighSaturated {
  int32_t operator()(int32_t a, int32_t b, int32_t c) const {
    return saturate<int32_t>(int64_t{high_product(a, b)} + c);
  }
};
template <class T, bool kHigh>
struct Mul24 {
  T operator()(T a, T b) const {
    const auto low = [](T v) {
      return static_cast<int64_t>(static_cast<T>(static_cast<uint32_t>(v) << 8) >> 8);
    };
    return static_cast<T>(low(a) * low(b) >> (kHigh ? 16 : 0));
  }
};

Handler select_mul(Decode& d) {
  return for_integer(d.type(), [&]<class T>() -> Handler {
    if (d.has("wide")) {
      if constexpr (sizeof(T) == 8) {
        return nullptr;
      } else {
        d.out.unit = Unit::integer;
        d.result(0, 2 * kBits<T>);
        d.source(1, kBits<T>);
        d.source(2, kBits<T>);
        return mul_wide<T>;
      }
    }
    lay_out(d, kBits<T>, 2);
    if (d.has("hi")) return binary<T, MulHigh>;
    d.out.define = define_upwards<T, 2>;
    return binary<T, MulLow>;
  });
}

Handler select_mad(Decode& d) {
  if (d.has("cc")) return mad_with_carry<false>(d);
  return for_integer(d.type(), [&]<class T>() -> Handler {
    if (d.has("wide")) {
      if constexpr (sizeof(T) == 8) {
        return nullptr;
      } else {
        d.out.unit = Unit::integer;
        d.result(0, 2 * kBits<T>);
        d.source(1, kBits<T>);
        d.source(2, kBits<T>);
        d.source(3, 2 * kBits<T>);
        return mad_wide<T>;
      }
    }
    lay_out(d, kBits<T>, 3);
    if (d.has("hi")) return d.has("sat") ? ternary<int32_t, MadHighSaturated> : ternary<T, MadHigh>;
    d.out.define = define_upwards<T, 3>;
    return ternary<T, MadLow>;
  });
}

template <bool kAdd>
Handler select_24(Decode& d) {
  const bool high = d.has("hi");
  const auto select = [&]<class T>() -> Handler {
    lay_out(d, 32, kAdd ? 3 : 2);
    if constexpr (kAdd) {
      if (high)
        return [](Warp& w, const Instruction& in, uint32_t lanes) {
          map_lanes<T, T, T, T>(w, in, lanes,
                                [](T a, T b, T c) { return wrap_add(Mul24<T, true>()(a, b), c); });
        };
      return [](Warp& w, const Instruction& in, uint32_t lanes) {
        map_lanes<T, T, T, T>(w, in, lanes,
                              [](T a, T b, T c) { return wrap_add(Mul24<T, false>()(a, b), c); });
      };
    } else {
      return high ? binary<T, Mul24<T, true>> : binary<T, Mul24<T, false>>;
    }
  };
  return d.type() == "s32" ? select.template operator()<int32_t>()
                           : select.template operator()<uint32_t>();
}

// --- Quotients: by zero all ones and the dividend, as hardware gives

struct Div {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return wrap_sub(T{0}, a);
    return static_cast<T>(a / b);
  }
};
struct Rem {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};

template <class F>
Handler select_binary(Decode& d) {
  return for_integer(d.type(), [&]<class T>() -> Handler {
    lay_out(d, kBits<T>, 2);
    return binary<T, F>;
  });
}

// --- One source

struct Abs {
  template <class T>
  T operator()(T a) const {
    return a < 0 ? wrap_sub(T{0}, a) : a;
  }
};
struct Neg {
  template <class T>
  T operator()(T a) const {
    return wrap_sub(T{0}, a);
  }
};
struct CNot {
  template <class T>
  T operator()(T a) const {
    return a == 0;
  }
};

template <class F>
Handler select_unary(Decode& d) {
  return for_integer(d.type(), [&]<class T>() -> Handler {
    lay_out(d, kBits<T>, 1);
    return unary<T, F>;
  });
}

// A 32-bit count of something in 32 or 64 bits.
struct PopCount {
  template <class T>
  uint32_t operator()(T a) const {
    return static_cast<uint32_t>(std::popcount(static_cast<Bits<T>>(a)));
  }
};
struct LeadingZeros {
  template <class T>
  uint32_t operator()(T a) const {
    return static_cast<uint32_t>(std::countl_zero(static_cast<Bits<T>>(a)));
  }
};
// The highest bit that differs from the sign; all ones where there is none.
struct FindHigh {
  template <class T>
  uint32_t operator()(T a) const {
    const auto bits = static_cast<Bits<T>>(std::is_signed_v<T> && a < 0 ? ~a : a);
    return bits == 0 ? 0xffffffffu
                     : static_cast<uint32_t>(kBits<T> - 1 -
                                             static_cast<unsigned>(std::countl_zero(bits)));
  }
};
struct FindHighShift {
  template <class T>
  uint32_t operator()(T a) const {
    const uint32_t at = FindHigh()(a);
    return at == 0xffffffffu ? at : kBits<T> - 1 - at;
  }
};

template <class F>
Handler select_count(Decode& d) {
  return for_integer(d.type(), [&]<class T>() -> Handler {
    if constexpr (sizeof(T) < 4) {
      return nullptr;
    } else {
      d.out.unit = Unit::integer;
      d.result(0, 32);
      d.source(1, kBits<T>);
      return [](Warp& w, const Instruction& in, uint32_t lanes) {
        map_lanes<uint32_t, T>(w, in, lanes, [](T a) { return F()(a); });
      };
    }
  });
}

Handler select_find(Decode& d) {
  return d.has("shiftamt") ? select_count<FindHighShift>(d) : select_count<FindHigh>(d);
}

// --- Others

Handler select_sad(Decode& d) {
  return for_integer(d.type(), [&]<class T>() -> Handler {
    lay_out(d, kBits<T>, 3);
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<T, T, T, T>(w, in, lanes, [](T a, T b, T c) {
        return wrap_add(c, a < b ? wrap_sub(b, a) : wrap_sub(a, b));
      });
    };
  });
}

// dp4a and dp2a: bytes of b with bytes, or with the halves, of a.
template <class A, class B>
void dot_bytes(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, lanes, [](uint32_t a, uint32_t b, uint32_t c) {
        for (unsigned i = 0; i < 4; ++i) {
          c += static_cast<uint32_t>(static_cast<int32_t>(static_cast<A>(a >> 8 * i)) *
                                     static_cast<int32_t>(static_cast<B>(b >> 8 * i)));
        }
        return c;
      });
}
template <class A, class B, unsigned kShift>
void dot_halves(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, lanes, [](uint32_t a, uint32_t b, uint32_t c) {
        for (unsigned i = 0; i < 2; ++i) {
          c += static_cast<uint32_t>(static_cast<int32_t>(static_cast<A>(a >> 16 * i)) *
                                     static_cast<int32_t>(static_cast<B>(b >> (8 * i + kShift))));
        }
        return c;
      });
}

Handler select_dp4a(Decode& d) {
  lay_out(d, 32, 3);
  const bool a = d.type(1) == "s32", b = d.type() == "s32";
  if (a) return b ? dot_bytes<int8_t, int8_t> : dot_bytes<int8_t, uint8_t>;
  return b ? dot_bytes<uint8_t, int8_t> : dot_bytes<uint8_t, uint8_t>;
}

template <unsigned kShift>
Handler dp2a(bool a, bool b) {
  if (a) return b ? dot_halves<int16_t, int8_t, kShift> : dot_halves<int16_t, uint8_t, kShift>;
  return b ? dot_halves<uint16_t, int8_t, kShift> : dot_halves<uint16_t, uint8_t, kShift>;
}
Handler select_dp2a(Decode& d) {
  lay_out(d, 32, 3);
  const bool a = d.type(1) == "s32", b = d.type() == "s32";
  return d.has("hi") ? dp2a<16>(a, b) : dp2a<0>(a, b);
}

}  // namespace

std::span<const Opcode> integer_opcodes() {
  static constexpr Opcode kOpcodes[] = {
      {"add", select_sum<Add, AddSaturated, false>},
      {"sub", select_sum<Sub, SubSaturated, true>},
      {"addc", select_carry<false, true>},
      {"subc", select_carry<true, true>},
      {"mul", select_mul},
      {"mad", select_mad},
      {"madc", mad_with_carry<true>},
      {"mul24", select_24<false>},
      {"mad24", select_24<true>},
      {"div", select_binary<Div>},
      {"rem", select_binary<Rem>},
      {"min", select_extreme<Min>},
      {"max", select_extreme<Max>},
      {"abs", select_unary<Abs>},
      {"neg", select_unary<Neg>},
      {"cnot", select_unary<CNot>},
      {"popc", select_count<PopCount>},
      {"clz", select_count<LeadingZeros>},
      {"bfind", select_find},
      {"sad", select_sad},
      {"dp4a", select_dp4a},
      {"dp2a", select_dp2a},
  };
  return kOpcodes;
}

}  // namespace longclock::emulator
