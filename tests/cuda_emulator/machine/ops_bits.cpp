// SPDX-License-Identifier: Apache-2.0
// Bits and moves: what neither adds nor compares. Definedness is exact here, bit by bit: packed
// values are taken apart by these instructions.
#include <algorithm>
#include <array>
#include <bit>

#include "ops_common.h"

namespace longclock::emulator {
namespace {

template <class T>
using S = Shadowed<T>;

// A source of this opcode in one unsigned width; b, u and s are the same to it.
template <class F>
Handler for_bits(std::string_view type, F f) {
  return for_integer(
      type, [&]<class T>() -> Handler { return f.template operator()<std::make_unsigned_t<T>>(); });
}

void lay_out(Decode& d, unsigned bits, size_t sources) {
  d.out.unit = Unit::integer;
  d.result(0, bits);
  for (size_t i = 1; i <= sources; ++i) d.source(i, bits);
}

// --- and, or, xor, not

struct And {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
  template <class T>
  T operator()(S<T> a, S<T> b) const {  // a defined 0 decides
    return static_cast<T>((a.bits | b.bits) & (a.value | a.bits) & (b.value | b.bits));
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
  template <class T>
  T operator()(S<T> a, S<T> b) const {
    return static_cast<T>((a.bits | b.bits) & (~a.value | a.bits) & (~b.value | b.bits));
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
  template <class T>
  T operator()(S<T> a, S<T> b) const {
    return static_cast<T>(a.bits | b.bits);
  }
};

template <class F>
void predicate_logic(Warp& w, const Instruction& in, uint32_t lanes) {
  w.set_predicate(in.operands[0], F()(w.predicate(in.operands[1]), w.predicate(in.operands[2])),
                  lanes);
}
template <class F>
void define_predicate_logic(Warp& w, const Instruction& in, uint32_t lanes) {
  const S<uint32_t> a{w.predicate(in.operands[1]), w.undefined_lanes(in.operands[1])};
  const S<uint32_t> b{w.predicate(in.operands[2]), w.undefined_lanes(in.operands[2])};
  w.mark(in.operands[0], F()(a, b), lanes);
}

template <class F>
Handler select_logic(Decode& d) {
  if (d.type() == "pred") {
    lay_out(d, 1, 2);
    d.out.define = define_predicate_logic<F>;
    return predicate_logic<F>;
  }
  return for_bits(d.type(), [&]<class T>() -> Handler {
    lay_out(d, kBits<T>, 2);
    d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
      define_lanes<T, T, T>(w, in, lanes, F());
    };
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<T, T, T>(w, in, lanes, F());
    };
  });
}

Handler select_not(Decode& d) {
  if (d.type() == "pred") {
    lay_out(d, 1, 1);
    d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
      w.mark(in.operands[0], w.undefined_lanes(in.operands[1]), lanes);
    };
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      w.set_predicate(in.operands[0], ~w.predicate(in.operands[1]), lanes);
    };
  }
  return for_bits(d.type(), [&]<class T>() -> Handler {
    lay_out(d, kBits<T>, 1);
    d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
      define_lanes<T, T>(w, in, lanes, [](S<T> a) { return a.bits; });
    };
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<T, T>(w, in, lanes, [](T a) { return static_cast<T>(~a); });
    };
  });
}

// --- lop3: any function of three bits, by its truth table

uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, unsigned table) {
  uint32_t out = 0;
  for (unsigned i = 0; i < 8; ++i) {
    const uint32_t minterm = (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    out |= (table >> i & 1) != 0 ? minterm : 0;
  }
  return out;
}

template <unsigned kTable>
void lop3_lanes(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, lanes, [](uint32_t a, uint32_t b, uint32_t c) { return lop3(a, b, c, kTable); });
}

// A bit is undefined where some choice of the undefined inputs changes it.
void define_lop3(Warp& w, const Instruction& in, uint32_t lanes) {
  const auto table = static_cast<unsigned>(in.immediate);
  define_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, lanes, [table](S<uint32_t> a, S<uint32_t> b, S<uint32_t> c) {
        const uint32_t first = lop3(a.value, b.value, c.value, table);
        uint32_t bits = 0;
        for (unsigned i = 1; i < 8; ++i) {
          bits |= first ^ lop3(a.value ^ (i & 4 ? a.bits : 0), b.value ^ (i & 2 ? b.bits : 0),
                               c.value ^ (i & 1 ? c.bits : 0), table);
        }
        return bits;
      });
}

template <size_t... kTable>
constexpr std::array<Handler, sizeof...(kTable)> lop3_table(std::index_sequence<kTable...>) {
  return {lop3_lanes<kTable>...};
}

// lop3.or.b32 d|p, a, b, c, table, q: also p = (d != 0) or q.
void lop3_predicate(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t *a = w.source<uint32_t>(in.operands[2]), *b = w.source<uint32_t>(in.operands[3]),
                 *c = w.source<uint32_t>(in.operands[4]);
  const uint32_t q = w.predicate(in.operands[5]);
  uint32_t values[kWarpLanes], set = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    values[l] = lop3(a[l], b[l], c[l], static_cast<unsigned>(in.immediate & 0xff));
    set |= static_cast<uint32_t>(values[l] != 0) << l;
  }
  store_lanes(w.result<uint32_t>(in.operands[0]), values, lanes);
  w.set_predicate(in.operands[1], in.immediate >> 8 ? set & q : set | q, lanes);
}

Handler select_lop3(Decode& d) {
  static constexpr auto kHandlers = lop3_table(std::make_index_sequence<256>());
  if (d.type() != "b32") return nullptr;
  const bool with_predicate = d.operand(0).kind == ptx::Operand::Kind::pair;
  d.out.unit = Unit::integer;
  d.out.immediate = d.integer(4) & 0xff;
  if (with_predicate) {
    if (d.operands() != 6) return nullptr;
    d.result(0, 32);
    for (size_t i = 1; i <= 3; ++i) d.source(i, 32);
    d.source(5, 1);
    if (d.has("and")) d.out.immediate |= 1 << 8;
    return lop3_predicate;
  }
  lay_out(d, 32, 3);
  d.out.define = define_lop3;
  return kHandlers[static_cast<size_t>(d.out.immediate)];
}

// --- Shifts: an amount beyond the width shifts everything out

template <class T>
T shift_left(T a, uint32_t by) {
  return by >= kBits<T> ? T{0} : static_cast<T>(a << by);
}
template <class T>
T shift_right(T a, uint32_t by) {
  return static_cast<T>(a >> std::min(by, kBits<T> - 1) >>
                        (by >= kBits<T> && std::is_unsigned_v<T> ? 1 : 0));
}

template <class T, class F, class G>
Handler select_shift(Decode& d, F, G) {
  d.out.unit = Unit::integer;
  d.result(0, kBits<T>);
  d.source(1, kBits<T>);
  d.source(2, 32);
  using U = std::make_unsigned_t<T>;
  d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
    define_lanes<U, U, uint32_t>(w, in, lanes, [](S<U> a, S<uint32_t> by) {
      return by.bits != 0 ? static_cast<U>(-1)
                          : static_cast<U>(G()(static_cast<T>(a.bits), by.value));
    });
  };
  return [](Warp& w, const Instruction& in, uint32_t lanes) {
    map_lanes<T, T, uint32_t>(w, in, lanes, F());
  };
}

struct ShiftLeft {
  template <class T>
  T operator()(T a, uint32_t by) const {
    return shift_left(a, by);
  }
};
struct ShiftRight {
  template <class T>
  T operator()(T a, uint32_t by) const {
    return shift_right(a, by);
  }
};

Handler select_shl(Decode& d) {
  return for_bits(
      d.type(), [&]<class T>() -> Handler { return select_shift<T>(d, ShiftLeft(), ShiftLeft()); });
}
Handler select_shr(Decode& d) {
  return for_integer(d.type(), [&]<class T>() -> Handler {
    return select_shift<T>(d, ShiftRight(), ShiftRight());
  });
}

// shf: a 32-bit window into {b, a}.
template <bool kLeft, bool kWrap>
struct Funnel {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t by) const {
    by = kWrap ? by & 31 : std::min(by, 32u);
    const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    return static_cast<uint32_t>(kLeft ? both << by >> 32 : both >> by);
  }
};
template <bool kLeft, bool kWrap>
Handler funnel(Decode& d) {
  lay_out(d, 32, 3);
  using F = Funnel<kLeft, kWrap>;
  d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
    define_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(
        w, in, lanes, [](S<uint32_t> a, S<uint32_t> b, S<uint32_t> by) {
          return by.bits != 0 ? 0xffffffffu : F()(a.bits, b.bits, by.value);
        });
  };
  return [](Warp& w, const Instruction& in, uint32_t lanes) {
    map_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(w, in, lanes, F());
  };
}
Handler select_shf(Decode& d) {
  if (d.type() != "b32") return nullptr;
  const bool wrap = d.has("wrap");
  if (d.has("l")) return wrap ? funnel<true, true>(d) : funnel<true, false>(d);
  return wrap ? funnel<false, true>(d) : funnel<false, false>(d);
}

// --- Fields

template <class T>
T extract(T a, uint32_t at, uint32_t length) {
  using U = std::make_unsigned_t<T>;
  at &= 0xff;
  length &= 0xff;
  if (length == 0) return 0;
  U field = at >= kBits<T> ? U{0} : static_cast<U>(static_cast<U>(a) >> at);
  const bool is_signed = std::is_signed_v<T>;
  const bool sign =
      is_signed && (static_cast<U>(a) >> std::min(at + length - 1, kBits<T> - 1) & 1) != 0;
  const uint32_t kept = at >= kBits<T> ? 0 : std::min(length, kBits<T> - at);
  const U mask = kept >= kBits<T> ? static_cast<U>(-1) : static_cast<U>((U{1} << kept) - 1);
  field &= mask;
  return static_cast<T>(sign ? field | static_cast<U>(~mask) : field);
}
template <class T>
T insert(T a, T b, uint32_t at, uint32_t length) {
  at &= 0xff;
  length &= 0xff;
  if (at >= kBits<T> || length == 0) return b;
  const T ones = length >= kBits<T> ? static_cast<T>(-1) : static_cast<T>((T{1} << length) - 1);
  const T mask = static_cast<T>(ones << at);
  return static_cast<T>((static_cast<T>(a << at) & mask) | (b & ~mask));
}

Handler select_bfe(Decode& d) {
  return for_integer(d.type(), [&]<class T>() -> Handler {
    d.out.unit = Unit::integer;
    d.result(0, kBits<T>);
    d.source(1, kBits<T>);
    d.source(2, 32);
    d.source(3, 32);
    using U = std::make_unsigned_t<T>;
    d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
      define_lanes<U, U, uint32_t, uint32_t>(
          w, in, lanes, [](S<U> a, S<uint32_t> at, S<uint32_t> length) {
            if ((at.bits | length.bits) != 0) return static_cast<U>(-1);
            return static_cast<U>(extract(static_cast<T>(a.bits), at.value, length.value));
          });
    };
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<T, T, uint32_t, uint32_t>(
          w, in, lanes, [](T a, uint32_t at, uint32_t n) { return extract(a, at, n); });
    };
  });
}

Handler select_bfi(Decode& d) {
  return for_bits(d.type(), [&]<class T>() -> Handler {
    d.out.unit = Unit::integer;
    d.result(0, kBits<T>);
    d.source(1, kBits<T>);
    d.source(2, kBits<T>);
    d.source(3, 32);
    d.source(4, 32);
    d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
      define_lanes<T, T, T, uint32_t, uint32_t>(
          w, in, lanes, [](S<T> a, S<T> b, S<uint32_t> at, S<uint32_t> n) {
            return (at.bits | n.bits) != 0 ? static_cast<T>(-1)
                                           : insert(a.bits, b.bits, at.value, n.value);
          });
    };
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<T, T, T, uint32_t, uint32_t>(
          w, in, lanes, [](T a, T b, uint32_t at, uint32_t n) { return insert(a, b, at, n); });
    };
  });
}

// bmsk: `length` ones from bit `at` on.
template <bool kClamp>
uint32_t bit_mask(uint32_t at, uint32_t length) {
  if (!kClamp) {
    at &= 31;
    length &= 31;
  }
  if (at >= 32 || length == 0) return 0;
  return (length >= 32 ? ~0u : (1u << length) - 1) << at;
}
Handler select_bmsk(Decode& d) {
  lay_out(d, 32, 2);
  if (d.has("clamp")) {
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<uint32_t, uint32_t, uint32_t>(w, in, lanes, bit_mask<true>);
    };
  }
  return [](Warp& w, const Instruction& in, uint32_t lanes) {
    map_lanes<uint32_t, uint32_t, uint32_t>(w, in, lanes, bit_mask<false>);
  };
}

// szext: the low n bits, extended by their sign or by zeros.
template <class T, bool kClamp>
T sign_extend(T a, uint32_t n) {
  if (!kClamp) n &= 31;
  if (n >= 32) return a;
  if (n == 0) return 0;
  return static_cast<T>(static_cast<T>(static_cast<uint32_t>(a) << (32 - n)) >> (32 - n));
}
Handler select_szext(Decode& d) {
  const bool clamp = d.has("clamp");
  d.out.unit = Unit::integer;
  d.result(0, 32);
  d.source(1, 32);
  d.source(2, 32);
  const auto select = [&]<class T>() -> Handler {
    if (clamp)
      return [](Warp& w, const Instruction& in, uint32_t lanes) {
        map_lanes<T, T, uint32_t>(w, in, lanes, sign_extend<T, true>);
      };
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<T, T, uint32_t>(w, in, lanes, sign_extend<T, false>);
    };
  };
  return d.type() == "s32" ? select.template operator()<int32_t>()
                           : select.template operator()<uint32_t>();
}

template <class T>
T reverse_bits(T a) {
  T out = 0;
  for (unsigned i = 0; i < kBits<T>; ++i)
    out = static_cast<T>(out | static_cast<T>(a >> i & 1) << (kBits<T> - 1 - i));
  return out;
}
Handler select_brev(Decode& d) {
  return for_bits(d.type(), [&]<class T>() -> Handler {
    lay_out(d, kBits<T>, 1);
    d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
      define_lanes<T, T>(w, in, lanes, [](S<T> a) { return reverse_bits(a.bits); });
    };
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<T, T>(w, in, lanes, reverse_bits<T>);
    };
  });
}

// fns: the n-th set bit of a mask from `base` on, downwards where n is negative.
uint32_t find_nth_set(uint32_t mask, uint32_t base, int32_t n) {
  if (n == 0) return mask >> (base & 31) & 1 ? base : 0xffffffffu;
  const int step = n < 0 ? -1 : 1;
  int left = n < 0 ? -n : n;
  for (int at = static_cast<int>(base); at >= 0 && at < 32; at += step) {
    if ((mask >> at & 1) != 0 && --left == 0) return static_cast<uint32_t>(at);
  }
  return 0xffffffffu;
}
Handler select_fns(Decode& d) {
  lay_out(d, 32, 3);
  return [](Warp& w, const Instruction& in, uint32_t lanes) {
    map_lanes<uint32_t, uint32_t, uint32_t, int32_t>(w, in, lanes, find_nth_set);
  };
}

// --- prmt: four bytes chosen of eight

uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t out = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned choice = selector >> 4 * i;
    uint32_t byte = static_cast<uint32_t>(bytes >> 8 * (choice & 7)) & 0xff;
    if ((choice & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
    out |= byte << 8 * i;
  }
  return out;
}
// The modes choose by the low two bits of c.
uint32_t mode_selector(std::string_view mode, uint32_t c) {
  constexpr uint32_t kF4e[] = {0x3210, 0x4321, 0x5432, 0x6543},
                     kB4e[] = {0x5670, 0x6701, 0x7012, 0x0123},
                     kRc8[] = {0x0000, 0x1111, 0x2222, 0x3333},
                     kEcl[] = {0x3210, 0x3211, 0x3222, 0x3333},
                     kEcr[] = {0x0000, 0x1110, 0x2210, 0x3210},
                     kRc16[] = {0x1010, 0x3232, 0x1010, 0x3232};
  const uint32_t* table = mode == "f4e"   ? kF4e
                          : mode == "b4e" ? kB4e
                          : mode == "rc8" ? kRc8
                          : mode == "ecl" ? kEcl
                          : mode == "ecr" ? kEcr
                                          : kRc16;
  return table[c & 3];
}
Handler select_prmt(Decode& d) {
  lay_out(d, 32, 3);
  const std::string_view mode = d.modifier(1);
  if (!mode.empty()) {
    *d.make_extra<std::string_view>() = mode;
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      const std::string_view which = *static_cast<const std::string_view*>(in.extra);
      map_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(
          w, in, lanes, [=](uint32_t a, uint32_t b, uint32_t c) {
            return permute(a, b, mode_selector(which, c));
          });
    };
  }
  d.out.define = [](Warp& w, const Instruction& in, uint32_t lanes) {
    define_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(
        w, in, lanes, [](S<uint32_t> a, S<uint32_t> b, S<uint32_t> c) {
          return c.bits != 0 ? 0xffffffffu : permute(a.bits, b.bits, c.value);
        });
  };
  return [](Warp& w, const Instruction& in, uint32_t lanes) {
    map_lanes<uint32_t, uint32_t, uint32_t, uint32_t>(w, in, lanes, permute);
  };
}

// --- selp, slct

template <class T>
void select_lanes(Warp& w, const Instruction& in, uint32_t lanes) {
  const T *a = w.source<T>(in.operands[1]), *b = w.source<T>(in.operands[2]);
  const uint32_t chosen = w.predicate(in.operands[3]);
  T values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) values[l] = chosen >> l & 1 ? a[l] : b[l];
  store_lanes(w.result<T>(in.operands[0]), values, lanes);
}
// An undefined choice between equal values is none.
template <class T>
void define_select(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t chosen = w.predicate(in.operands[3]), unknown = w.undefined_lanes(in.operands[3]);
  define_result<T>(w, in.operands[0], lanes, [&](unsigned l) {
    const T a = undefined_bits<T>(w, in.operands[1], l),
            b = undefined_bits<T>(w, in.operands[2], l);
    if ((unknown >> l & 1) == 0) return chosen >> l & 1 ? a : b;
    return static_cast<T>(a | b |
                          (w.source<T>(in.operands[1])[l] ^ w.source<T>(in.operands[2])[l]));
  });
}

template <class F>
Handler for_width(std::string_view type, F f) {
  if (type == "f16" || type == "bf16") return f.template operator()<uint16_t>();
  if (type == "f32" || type == "f16x2" || type == "bf16x2")
    return f.template operator()<uint32_t>();
  if (type == "f64") return f.template operator()<uint64_t>();
  return for_bits(type, f);
}

Handler select_selp(Decode& d) {
  return for_width(d.type(), [&]<class T>() -> Handler {
    d.out.unit = Unit::move;
    d.result(0, kBits<T>);
    d.source(1, kBits<T>);
    d.source(2, kBits<T>);
    d.source(3, 1);
    d.out.define = define_select<T>;
    return select_lanes<T>;
  });
}

// slct.dtype.{s32, f32} d, a, b, c: a where c >= 0.
Handler select_slct(Decode& d) {
  const bool by_float = d.type() == "f32";
  return for_width(d.type(1), [&]<class T>() -> Handler {
    d.out.unit = Unit::move;
    d.result(0, kBits<T>);
    d.source(1, kBits<T>);
    d.source(2, kBits<T>);
    d.source(3, 32);
    if (by_float) {
      return [](Warp& w, const Instruction& in, uint32_t lanes) {
        map_lanes<T, T, T, float>(w, in, lanes,
                                  [](T a, T b, float c) { return c >= 0.0f ? a : b; });
      };
    }
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      map_lanes<T, T, T, int32_t>(w, in, lanes, [](T a, T b, int32_t c) { return c >= 0 ? a : b; });
    };
  });
}

}  // namespace

Handler select_mov(Decode& d);  // ops_move.cpp

std::span<const Opcode> bit_opcodes() {
  static constexpr Opcode kOpcodes[] = {
      {"and", select_logic<And>}, {"or", select_logic<Or>}, {"xor", select_logic<Xor>},
      {"not", select_not},        {"lop3", select_lop3},    {"shl", select_shl},
      {"shr", select_shr},        {"shf", select_shf},      {"bfe", select_bfe},
      {"bfi", select_bfi},        {"bmsk", select_bmsk},    {"szext", select_szext},
      {"brev", select_brev},      {"fns", select_fns},      {"prmt", select_prmt},
      {"selp", select_selp},      {"slct", select_slct},    {"mov", select_mov},
  };
  return kOpcodes;
}

}  // namespace longclock::emulator
