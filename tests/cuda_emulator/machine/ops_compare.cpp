// SPDX-License-Identifier: Apache-2.0
// setp, set, testp. Every type is brought to one that the host compares: halves to float.
#include <bit>
#include <cmath>

#include "half.h"
#include "ops_common.h"

namespace longclock::emulator {
namespace {

enum class Relation : uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };

// Of floats: an ordered relation fails and an unordered one holds where there is a NaN.
template <Relation kRelation, class T>
bool holds(T a, T b) {
  switch (kRelation) {
    case Relation::eq:
      return a == b;
    case Relation::ne:
      return a < b || a > b;
    case Relation::lt:
      return a < b;
    case Relation::le:
      return a <= b;
    case Relation::gt:
      return a > b;
    case Relation::ge:
      return a >= b;
    case Relation::equ:
      return !(a < b || a > b);
    case Relation::neu:
      return !(a == b);
    case Relation::ltu:
      return !(a >= b);
    case Relation::leu:
      return !(a > b);
    case Relation::gtu:
      return !(a <= b);
    case Relation::geu:
      return !(a < b);
    case Relation::num:
      return a == a && b == b;
    case Relation::nan:
      return !(a == a && b == b);
  }
  return false;
}

// How a row becomes values to compare.
template <class T>
struct Plain {
  using Row = T;
  using Value = T;
  static T value(T v) { return v; }
};
struct FlushedFloat {
  using Row = float;
  using Value = float;
  static float value(float v) { return std::fabs(v) < 0x1p-126f ? 0.0f : v; }
};
struct HalfRow {
  using Row = uint16_t;
  using Value = float;
  static float value(uint16_t v) { return half_to_float(v); }
};
struct BfloatRow {
  using Row = uint16_t;
  using Value = float;
  static float value(uint16_t v) { return bfloat_to_float(v); }
};

template <class Form, Relation kRelation>
uint32_t compare(Warp& w, const Operand& a, const Operand& b) {
  using Row = typename Form::Row;
  const Row *x = w.source<Row>(a), *y = w.source<Row>(b);
  alignas(32) uint8_t bools[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l)
    bools[l] = holds<kRelation>(Form::value(x[l]), Form::value(y[l])) ? 0xff : 0;
  return pack_lanes(bools);
}

enum class Combine : uint8_t { none, and_, or_, xor_ };
template <Combine kCombine>
uint32_t combine(uint32_t held, uint32_t c) {
  return kCombine == Combine::and_   ? held & c
         : kCombine == Combine::or_  ? held | c
         : kCombine == Combine::xor_ ? held ^ c
                                     : held;
}

// setp.rel{.bool}.type p{|q}, a, b{, c}: q combines the opposite.
template <class Form, Relation kRelation, Combine kCombine>
void set_predicate(Warp& w, const Instruction& in, uint32_t lanes) {
  const unsigned first = in.results;
  const uint32_t held = compare<Form, kRelation>(w, in.operands[first], in.operands[first + 1]);
  const uint32_t c = kCombine == Combine::none ? 0 : w.predicate(in.operands[first + 2]);
  w.set_predicate(in.operands[0], combine<kCombine>(held, c), lanes);
  if (first == 2) w.set_predicate(in.operands[1], combine<kCombine>(~held, c), lanes);
}

// set.rel{.bool}.dtype.type d, a, b{, c}: all ones, or 1.0.
template <class Form, Relation kRelation, Combine kCombine>
void set_value(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t held = compare<Form, kRelation>(w, in.operands[1], in.operands[2]);
  const uint32_t c = kCombine == Combine::none ? 0 : w.predicate(in.operands[3]);
  const uint32_t set = combine<kCombine>(held, c);
  const auto value = static_cast<uint32_t>(in.immediate);
  uint32_t* row = w.result<uint32_t>(in.operands[0]);
  for_lanes(lanes, [&](unsigned l) { row[l] = set >> l & 1 ? value : 0; });
}

// An undefined bit that decides nothing: what is compared differs above it. Only and, or are exact.
template <Combine kCombine>
void define_combined(Warp& w, const Instruction& in, uint32_t lanes) {
  const unsigned first = in.results;
  const uint32_t ab =
      w.undefined_lanes(in.operands[first]) | w.undefined_lanes(in.operands[first + 1]);
  const Operand& operand = in.operands[first + 2];
  const uint32_t c = w.undefined_lanes(operand), value = w.predicate(operand);
  const uint32_t decides = kCombine == Combine::and_  ? ~value
                           : kCombine == Combine::or_ ? value
                                                      : 0;
  const uint32_t undefined = (ab | c) & ~(~c & decides);
  for (unsigned r = 0; r < in.results; ++r) w.mark(in.operands[r], undefined, lanes);
}

template <bool kValue, class Form, Relation kRelation>
Handler by_combination(Decode& d, std::string_view how) {
  const auto choose = [&]<Combine kCombine>() -> Handler {
    if constexpr (kValue) return set_value<Form, kRelation, kCombine>;
    d.out.define = kCombine == Combine::none ? nullptr : define_combined<kCombine>;
    return set_predicate<Form, kRelation, kCombine>;
  };
  if (how == "and") return choose.template operator()<Combine::and_>();
  if (how == "or") return choose.template operator()<Combine::or_>();
  if (how == "xor") return choose.template operator()<Combine::xor_>();
  return choose.template operator()<Combine::none>();
}

template <bool kValue, class Form>
Handler by_relation(Decode& d, std::string_view relation, std::string_view how) {
#define LONGCLOCK_RELATION(name, r) \
  if (relation == name) return by_combination<kValue, Form, Relation::r>(d, how)
  LONGCLOCK_RELATION("eq", eq);
  LONGCLOCK_RELATION("lt", lt);
  LONGCLOCK_RELATION("lo", lt);
  LONGCLOCK_RELATION("le", le);
  LONGCLOCK_RELATION("ls", le);
  LONGCLOCK_RELATION("gt", gt);
  LONGCLOCK_RELATION("hi", gt);
  LONGCLOCK_RELATION("ge", ge);
  LONGCLOCK_RELATION("hs", ge);
  LONGCLOCK_RELATION("ne", ne);
  if constexpr (std::is_floating_point_v<typename Form::Value>) {
    LONGCLOCK_RELATION("equ", equ);
    LONGCLOCK_RELATION("neu", neu);
    LONGCLOCK_RELATION("ltu", ltu);
    LONGCLOCK_RELATION("leu", leu);
    LONGCLOCK_RELATION("gtu", gtu);
    LONGCLOCK_RELATION("geu", geu);
    LONGCLOCK_RELATION("num", num);
    LONGCLOCK_RELATION("nan", nan);
  }
#undef LONGCLOCK_RELATION
  return nullptr;
}

template <bool kValue>
Handler select_compare(Decode& d) {
  const std::string_view type = d.type(), relation = d.modifier(0);
  std::string_view how = d.modifier(1);
  if (how != "and" && how != "or" && how != "xor") how = "";
  const bool packed = type == "f16x2" || type == "bf16x2";
  const unsigned bits = type == "pred" || type.size() < 3 ? 0
                        : packed                          ? 32
                        : type == "bf16" ? 16
                                         : static_cast<unsigned>(std::atoi(type.data() + 1));
  if (bits == 0 || packed) return nullptr;
  d.out.unit = Unit::compare;
  d.result(0, kValue ? 32 : 1);
  d.source(1, bits);
  d.source(2, bits);
  if (!how.empty()) d.source(3, 1);
  if (kValue) {
    const std::string_view to = d.type(1);
    if (to == "u16" || to == "s16" || to == "f16" || to == "bf16") return nullptr;
    d.out.immediate = to == "f32" ? 0x3f800000 : 0xffffffff;
  }
  if (type == "f32") {
    return d.has("ftz") ? by_relation<kValue, FlushedFloat>(d, relation, how)
                        : by_relation<kValue, Plain<float>>(d, relation, how);
  }
  if (type == "f64") return by_relation<kValue, Plain<double>>(d, relation, how);
  if (type == "f16") return by_relation<kValue, HalfRow>(d, relation, how);
  if (type == "bf16") return by_relation<kValue, BfloatRow>(d, relation, how);
  return for_integer(
      type, [&]<class T>() -> Handler { return by_relation<kValue, Plain<T>>(d, relation, how); });
}

// setp of two halves at once: p of the lower, q of the upper.
template <class Form, Relation kRelation>
void set_predicates_of_halves(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t *a = w.source<uint32_t>(in.operands[2]), *b = w.source<uint32_t>(in.operands[3]);
  uint32_t held[2] = {};
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    for (unsigned h = 0; h < 2; ++h) {
      const auto x = static_cast<uint16_t>(a[l] >> 16 * h),
                 y = static_cast<uint16_t>(b[l] >> 16 * h);
      held[h] |= static_cast<uint32_t>(holds<kRelation>(Form::value(x), Form::value(y))) << l;
    }
  }
  for (unsigned h = 0; h < 2; ++h) w.set_predicate(in.operands[h], held[h], lanes);
}

template <class Form>
Handler halves_by_relation(std::string_view relation) {
  constexpr std::pair<std::string_view, Handler> kHandlers[] = {
      {"eq", set_predicates_of_halves<Form, Relation::eq>},
      {"ne", set_predicates_of_halves<Form, Relation::ne>},
      {"lt", set_predicates_of_halves<Form, Relation::lt>},
      {"le", set_predicates_of_halves<Form, Relation::le>},
      {"gt", set_predicates_of_halves<Form, Relation::gt>},
      {"ge", set_predicates_of_halves<Form, Relation::ge>},
      {"equ", set_predicates_of_halves<Form, Relation::equ>},
      {"neu", set_predicates_of_halves<Form, Relation::neu>},
      {"ltu", set_predicates_of_halves<Form, Relation::ltu>},
      {"leu", set_predicates_of_halves<Form, Relation::leu>},
      {"gtu", set_predicates_of_halves<Form, Relation::gtu>},
      {"geu", set_predicates_of_halves<Form, Relation::geu>},
      {"num", set_predicates_of_halves<Form, Relation::num>},
      {"nan", set_predicates_of_halves<Form, Relation::nan>},
  };
  for (const auto& [name, handler] : kHandlers) {
    if (name == relation) return handler;
  }
  return nullptr;
}

Handler select_compare_halves(Decode& d) {
  const std::string_view type = d.type();
  if ((type != "f16x2" && type != "bf16x2") || d.operands() != 3) return nullptr;
  d.out.unit = Unit::compare;
  d.result(0, 1);
  if (d.out.results != 2) return nullptr;
  d.source(1, 32);
  d.source(2, 32);
  return type == "f16x2" ? halves_by_relation<HalfRow>(d.modifier(0))
                         : halves_by_relation<BfloatRow>(d.modifier(0));
}

// set.rel.f16.f16, .f16x2.f16x2 and of bf16: 1.0 or 0 in the format (or all ones in .u16 and .u32).
template <class Form, Relation kRelation, unsigned kParts>
void set_halves(Warp& w, const Instruction& in, uint32_t lanes) {
  using Row = std::conditional_t<kParts == 2, uint32_t, uint16_t>;
  const auto one = static_cast<uint16_t>(in.immediate);
  map_lanes<Row, Row, Row>(w, in, lanes, [one](Row a, Row b) {
    uint32_t out = 0;
    for (unsigned h = 0; h < kParts; ++h) {
      const auto x = static_cast<uint16_t>(a >> 16 * h), y = static_cast<uint16_t>(b >> 16 * h);
      if (holds<kRelation>(Form::value(x), Form::value(y)))
        out |= static_cast<uint32_t>(one) << 16 * h;
    }
    return static_cast<Row>(out);
  });
}

template <class Form, unsigned kParts>
Handler set_by_relation(std::string_view relation) {
  constexpr std::pair<std::string_view, Handler> kHandlers[] = {
      {"eq", set_halves<Form, Relation::eq, kParts>},
      {"ne", set_halves<Form, Relation::ne, kParts>},
      {"lt", set_halves<Form, Relation::lt, kParts>},
      {"le", set_halves<Form, Relation::le, kParts>},
      {"gt", set_halves<Form, Relation::gt, kParts>},
      {"ge", set_halves<Form, Relation::ge, kParts>},
      {"equ", set_halves<Form, Relation::equ, kParts>},
      {"neu", set_halves<Form, Relation::neu, kParts>},
      {"ltu", set_halves<Form, Relation::ltu, kParts>},
      {"leu", set_halves<Form, Relation::leu, kParts>},
      {"gtu", set_halves<Form, Relation::gtu, kParts>},
      {"geu", set_halves<Form, Relation::geu, kParts>},
      {"num", set_halves<Form, Relation::num, kParts>},
      {"nan", set_halves<Form, Relation::nan, kParts>},
  };
  for (const auto& [name, handler] : kHandlers) {
    if (name == relation) return handler;
  }
  return nullptr;
}

Handler select_set_halves(Decode& d) {
  const std::string_view type = d.type(), to = d.type(1);
  const bool packed = type == "f16x2" || type == "bf16x2";
  if ((!packed && type != "f16" && type != "bf16") || d.operands() != 3) return nullptr;
  const unsigned bits = packed ? 32 : 16;
  d.out.unit = Unit::compare;
  d.result(0, bits);
  d.source(1, bits);
  d.source(2, bits);
  d.out.immediate = to[0] == 'f' ? 0x3c00 : to[0] == 'b' ? 0x3f80 : 0xffff;
  const bool half = type[0] == 'f';
  if (packed)
    return half ? set_by_relation<HalfRow, 2>(d.modifier(0))
                : set_by_relation<BfloatRow, 2>(d.modifier(0));
  return half ? set_by_relation<HalfRow, 1>(d.modifier(0))
              : set_by_relation<BfloatRow, 1>(d.modifier(0));
}

template <class T>
Handler test_property(std::string_view property) {
  const auto test = [&]<class F>(F) -> Handler {
    return [](Warp& w, const Instruction& in, uint32_t lanes) {
      w.set_predicate(in.operands[0], test_lanes<T>(w, in, 1, F()), lanes);
    };
  };
  if (property == "finite") return test([](T a) { return std::isfinite(a); });
  if (property == "infinite") return test([](T a) { return std::isinf(a); });
  if (property == "number") return test([](T a) { return !std::isnan(a); });
  if (property == "notanumber") return test([](T a) { return std::isnan(a); });
  if (property == "normal") return test([](T a) { return std::isnormal(a); });
  if (property == "subnormal") return test([](T a) { return std::fpclassify(a) == FP_SUBNORMAL; });
  return nullptr;
}

Handler select_testp(Decode& d) {
  const bool wide = d.type() == "f64";
  d.out.unit = Unit::compare;
  d.result(0, 1);
  d.source(1, wide ? 64 : 32);
  return wide ? test_property<double>(d.modifier(0)) : test_property<float>(d.modifier(0));
}

}  // namespace

std::span<const Opcode> compare_opcodes() {
  static constexpr Opcode kOpcodes[] = {
      {"setp", select_compare<false>}, {"setp", select_compare_halves}, {"set", select_set_halves},
      {"set", select_compare<true>},   {"testp", select_testp},
  };
  return kOpcodes;
}

}  // namespace longclock::emulator
