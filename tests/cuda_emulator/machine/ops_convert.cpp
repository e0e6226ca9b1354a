// SPDX-License-Identifier: Apache-2.0
// cvt: one handler for each pair of types and each rounding, over rows of a width that the types
// determine. cvta and isspacep: a generic address is a host address, one of shared or local memory
// an offset.
#include <cmath>
#include <utility>

#include "../memory/memory_map.h"
#include "block.h"
#include "convert_rows.h"

namespace longclock::emulator {
namespace {

using std::type_identity;

// Rare modifiers, kept in Instruction::immediate: looked at once a warp.
constexpr int64_t kFtz = 1, kSat = 2, kRelu = 4, kSatFinite = 8;

int64_t flags_of(const Decode& d) {
  return (d.has("ftz") ? kFtz : 0) | (d.has("sat") ? kSat : 0) | (d.has("relu") ? kRelu : 0) |
         (d.has("satfinite") ? kSatFinite : 0);
}

template <class T>
void flush_all(T* values) {
  for (unsigned l = 0; l < kWarpLanes; ++l) values[l] = flush(values[l]);
}

// .sat, .relu and .satfinite of values that are rounded later, which keeps 0, 1, max and the order.
template <class T>
void clamp_all(T* values, int64_t flags, T max) {
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    if (flags & kSat) values[l] = saturate(values[l]);
    if (flags & kRelu) values[l] = rectify(values[l]);
    if (flags & kSatFinite) {
      values[l] = values[l] > max ? max : values[l] < -max ? -max : values[l];
    }
  }
}

template <class T, class V>
V largest() {
  if constexpr (kIsHalf<T>) {
    return T::kMax;
  } else {
    return static_cast<V>(std::numeric_limits<T>::max());
  }
}

// --- Integers to integers

template <class To, class From, bool kSaturate>
void integer_to_integer(Warp& w, const Instruction& in, uint32_t lanes) {
  Cell<From> spare[kWarpLanes];
  const Cell<From>* from = source_row(w, in.operands[1], spare);
  alignas(64) Cell<To> values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const From x = static_cast<From>(from[l]);
    values[l] = kSaturate ? saturate_integer<To>(x) : static_cast<To>(x);
  }
  store_row(w, in.operands[0], values, lanes);
}

// Undefined bits go where the bits go; an undefined sign makes all that it extends to undefined.
template <class To, class From, bool kSaturate>
void define_integer(Warp& w, const Instruction& in, uint32_t lanes) {
  using Signed = std::make_signed_t<From>;
  using SignedTo = std::make_signed_t<To>;
  const Operand& source = in.operands[1];
  Cell<Signed> spare[kWarpLanes];
  const Cell<Signed>* row = spare;
  const unsigned step = source.bits > kBits<Cell<From>> ? source.bits / kBits<Cell<From>> : 1;
  const Cell<Signed>* bits = w.bits_of<Cell<Signed>>(source);
  for (unsigned l = 0; l < kWarpLanes; ++l) spare[l] = bits[l * step];
  const uint32_t any = w.undefined_lanes(source);
  uint32_t undefined = 0;
  // A conversion of the mask: sign extension repeats its top bit, zero extension adds defined bits.
  alignas(64) int64_t wide[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const From mask = ((any >> l) & 1) != 0 ? static_cast<From>(row[l]) : From{0};
    To to = static_cast<To>(mask);
    if (kSaturate && mask != 0) to = static_cast<To>(~To{0});
    wide[l] = std::is_signed_v<To> ? static_cast<int64_t>(static_cast<SignedTo>(to))
                                   : static_cast<int64_t>(static_cast<uint64_t>(to));
    undefined |= static_cast<uint32_t>(wide[l] != 0) << l;
  }
  const Operand& result = in.operands[0];
  const auto write = [&]<class C>(C* to) {
    for_lanes(lanes, [&](unsigned l) { to[l] = static_cast<C>(wide[l]); });
  };
  w.mark(result, undefined, lanes);
  if (result.bits == 16) write(w.bits_of<uint16_t>(result));
  if (result.bits == 32) write(w.bits_of<uint32_t>(result));
  if (result.bits == 64) write(w.bits_of<uint64_t>(result));
}

// --- Between integers and floats

template <class To, class From, Rounding kRounding>
void integer_to_float(Warp& w, const Instruction& in, uint32_t lanes) {
  Cell<From> spare[kWarpLanes];
  const Cell<From>* from = source_row(w, in.operands[1], spare);
  alignas(64) Cell<To> values[kWarpLanes];
  if constexpr (!kIsHalf<To>) {
    constexpr bool kExact = sizeof(From) < sizeof(To);
    in_rounding_mode<kExact ? Rounding::nearest : kRounding>(values, [&] {
      for (unsigned l = 0; l < kWarpLanes; ++l) {
        values[l] = static_cast<To>(static_cast<From>(from[l]));
      }
    });
    if (in.immediate != 0) clamp_all(values, in.immediate, largest<To, To>());
  } else if constexpr (sizeof(From) <= 2) {
    alignas(64) float wide[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      wide[l] = static_cast<float>(static_cast<From>(from[l]));
    }
    if (in.immediate != 0) clamp_all(wide, in.immediate, To::kMax);
    narrow_row<To, kRounding>(wide, values, kWarpLanes);
  } else {
    alignas(64) double wide[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) wide[l] = to_odd_double(static_cast<From>(from[l]));
    if (in.immediate != 0) clamp_all<double>(wide, in.immediate, To::kMax);
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      values[l] = static_cast<uint16_t>(narrow<To, kRounding>(wide[l]));
    }
  }
  store_row(w, in.operands[0], values, lanes);
}

template <class To, class From, Rounding kRounding>
void float_to_integer(Warp& w, const Instruction& in, uint32_t lanes) {
  // NaN is 0 where neither side has 64 bits.
  constexpr bool kNanIsZero = !std::is_same_v<From, double> && sizeof(To) < 8;
  alignas(64) Wide<From> from[kWarpLanes];
  load_wide<From>(w, in.operands[1], from);
  if (in.immediate & kFtz) flush_all(from);
  alignas(64) Cell<To> values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    values[l] = saturate_to_integer<To, kNanIsZero>(to_integral<kRounding>(from[l]));
  }
  store_row(w, in.operands[0], values, lanes);
}

// --- Floats to floats

template <class To, Rounding kRounding, class V>
void narrow_all(const V* from, Cell<To>* to) {
  if constexpr (kIsHalf<To> && std::is_same_v<V, float>) {
    narrow_row<To, kRounding>(from, to, kWarpLanes);
  } else if constexpr (kIsHalf<To>) {
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      to[l] = static_cast<uint16_t>(narrow<To, kRounding>(from[l]));
    }
  } else {
    constexpr bool kExact = sizeof(V) <= sizeof(To);
    in_rounding_mode<kExact ? Rounding::nearest : kRounding>(to, [&] {
      for (unsigned l = 0; l < kWarpLanes; ++l) to[l] = canonical(static_cast<To>(from[l]));
    });
  }
}

template <class To, class From, Rounding kRounding, bool kIntegral>
void float_to_float(Warp& w, const Instruction& in, uint32_t lanes) {
  using V = Wide<From>;
  const int64_t flags = in.immediate;
  alignas(64) V wide[kWarpLanes];
  load_wide<From>(w, in.operands[1], wide);
  if (std::is_same_v<From, float> && (flags & kFtz)) flush_all(wide);
  if constexpr (kIntegral) {
    for (unsigned l = 0; l < kWarpLanes; ++l) wide[l] = to_integral<kRounding>(wide[l]);
  }
  if (flags & ~kFtz) clamp_all(wide, flags, largest<To, V>());
  alignas(64) Cell<To> values[kWarpLanes];
  narrow_all<To, kIntegral ? Rounding::nearest : kRounding>(wide, values);
  if constexpr (std::is_same_v<To, float>) {
    if (flags & kFtz) flush_all(values);
  }
  store_row(w, in.operands[0], values, lanes);
}

template <Rounding kRounding>
void float_to_tf32(Warp& w, const Instruction& in, uint32_t lanes) {
  alignas(64) float values[kWarpLanes];
  load_wide<float>(w, in.operands[1], values);
  // The largest tf32.
  if (in.immediate & ~kFtz) clamp_all(values, in.immediate, 0x1.ffcp127f);
  for (unsigned l = 0; l < kWarpLanes; ++l) values[l] = round_to_tf32<kRounding>(values[l]);
  store_row(w, in.operands[0], values, lanes);
}

// cvt.rn.f16x2.f32 d, a, b: a is the upper half.
template <class To, Rounding kRounding>
void floats_to_pair(Warp& w, const Instruction& in, uint32_t lanes) {
  alignas(64) float wide[kWarpLanes];
  alignas(64) uint16_t halves[2][kWarpLanes];
  for (unsigned h = 0; h < 2; ++h) {
    load_wide<float>(w, in.operands[2 - h], wide);
    if (in.immediate & kFtz) flush_all(wide);
    if (in.immediate & ~kFtz) clamp_all(wide, in.immediate, To::kMax);
    narrow_row<To, kRounding>(wide, halves[h], kWarpLanes);
  }
  alignas(64) uint32_t values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    values[l] = static_cast<uint32_t>(halves[1][l]) << 16 | halves[0][l];
  }
  store_row(w, in.operands[0], values, lanes);
}

void define_pair(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t upper = w.undefined_lanes(in.operands[1]);
  const uint32_t lower = w.undefined_lanes(in.operands[2]);
  w.mark(in.operands[0], upper | lower, lanes);
  uint32_t* bits = w.bits_of<uint32_t>(in.operands[0]);
  for_lanes(lanes, [&](unsigned l) {
    bits[l] = ((upper >> l) & 1 ? 0xffff0000u : 0) | ((lower >> l) & 1 ? 0xffffu : 0);
  });
}

// --- Pairs of the smallest formats

template <class Small>
constexpr unsigned kStep = std::is_same_v<Small, E2m1> ? 4 : 8;

template <class To>
uint32_t narrow_small(float x, int64_t flags) {
  if (flags & kRelu) x = rectify(x);
  if (x != x) return To::kNan;
  return narrow<To>(std::clamp(x, -To::kMax, To::kMax));
}

// From two f32, or from an f16x2 or bf16x2.
template <class To, class From>
void to_small_pair(Warp& w, const Instruction& in, uint32_t lanes) {
  alignas(64) float parts[2][kWarpLanes];
  if constexpr (std::is_same_v<From, float>) {
    for (unsigned h = 0; h < 2; ++h) load_wide<float>(w, in.operands[2 - h], parts[h]);
  } else {
    const uint32_t* from = w.source<uint32_t>(in.operands[1]);
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      parts[0][l] = widen<From>(from[l] & 0xffff);
      parts[1][l] = widen<From>(from[l] >> 16);
    }
  }
  uint16_t values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    values[l] = static_cast<uint16_t>(narrow_small<To>(parts[1][l], in.immediate) << kStep<To> |
                                      narrow_small<To>(parts[0][l], in.immediate));
  }
  store_row(w, in.operands[0], values, lanes);
}

template <class To, class From>
void from_small_pair(Warp& w, const Instruction& in, uint32_t lanes) {
  uint16_t spare[kWarpLanes];
  const uint16_t* from = source_row(w, in.operands[1], spare);
  constexpr uint32_t kMask = (1u << kStep<From>)-1;
  uint32_t values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    float low = widen<From>(from[l] & kMask), high = widen<From>(from[l] >> kStep<From> & kMask);
    if (in.immediate & kRelu) low = rectify(low), high = rectify(high);
    values[l] = narrow<To>(high) << 16 | narrow<To>(low);
  }
  store_row(w, in.operands[0], values, lanes);
}

// --- cvt.pack

// a and b saturated to `immediate` bits (negative: unsigned), side by side, above them c's low
// bits.
void pack(Warp& w, const Instruction& in, uint32_t lanes) {
  const bool is_signed = in.immediate > 0;
  const unsigned bits = static_cast<unsigned>(is_signed ? in.immediate : -in.immediate);
  const int64_t min = is_signed ? -(int64_t{1} << (bits - 1)) : 0;
  const int64_t max = (int64_t{1} << (is_signed ? bits - 1 : bits)) - 1;
  const int32_t* a = w.source<int32_t>(in.operands[1]);
  const int32_t* b = w.source<int32_t>(in.operands[2]);
  const uint32_t* c = in.count > 3 ? w.source<uint32_t>(in.operands[3]) : nullptr;
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  uint32_t values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const uint64_t high = static_cast<uint64_t>(std::clamp<int64_t>(a[l], min, max)) & mask;
    const uint64_t low = static_cast<uint64_t>(std::clamp<int64_t>(b[l], min, max)) & mask;
    const uint64_t upper = c != nullptr ? static_cast<uint64_t>(c[l]) << (2 * bits) : 0;
    values[l] = static_cast<uint32_t>(upper | high << bits | low);
  }
  store_lanes(w.result<uint32_t>(in.operands[0]), values, lanes);
}

// --- Selection

template <class F>
Handler with_integer(std::string_view name, F f) {
  if (name == "u8") return f(type_identity<uint8_t>{});
  if (name == "s8") return f(type_identity<int8_t>{});
  if (name == "u16") return f(type_identity<uint16_t>{});
  if (name == "s16") return f(type_identity<int16_t>{});
  if (name == "u32") return f(type_identity<uint32_t>{});
  if (name == "s32") return f(type_identity<int32_t>{});
  if (name == "u64") return f(type_identity<uint64_t>{});
  if (name == "s64") return f(type_identity<int64_t>{});
  return nullptr;
}

template <class F>
Handler with_float(std::string_view name, F f) {
  if (name == "f16") return f(type_identity<Half>{});
  if (name == "bf16") return f(type_identity<Bfloat>{});
  if (name == "f32") return f(type_identity<float>{});
  if (name == "f64") return f(type_identity<double>{});
  return nullptr;
}

template <class F>
Handler with_any(std::string_view name, F f) {
  const Handler handler = with_integer(name, f);
  return handler != nullptr ? handler : with_float(name, f);
}

template <class F>
Handler with_small(std::string_view name, F f) {
  if (name == "e4m3x2") return f(type_identity<E4m3>{});
  if (name == "e5m2x2") return f(type_identity<E5m2>{});
  if (name == "e2m3x2") return f(type_identity<E2m3>{});
  if (name == "e3m2x2") return f(type_identity<E3m2>{});
  if (name == "e2m1x2") return f(type_identity<E2m1>{});
  return nullptr;
}

// .rni, .rzi, .rmi, .rpi; `otherwise` without any.
template <class F>
Handler with_integral_rounding(const Decode& d, F f) {
  if (d.has("rni")) return f(std::integral_constant<Rounding, Rounding::nearest>{});
  if (d.has("rmi")) return f(std::integral_constant<Rounding, Rounding::down>{});
  if (d.has("rpi")) return f(std::integral_constant<Rounding, Rounding::up>{});
  return f(std::integral_constant<Rounding, Rounding::zero>{});
}

template <class To, class From>
Handler select_scalar(Decode& d) {
  constexpr bool kFromFloat = kIsFloat<From>, kToFloat = kIsFloat<To>;
  if constexpr (!kFromFloat && !kToFloat) {
    return with_flag(d.has("sat"), [&](auto sat) -> Handler {
      d.out.define = define_integer<To, From, sat.value>;
      return integer_to_integer<To, From, sat.value>;
    });
  } else if constexpr (!kFromFloat) {
    d.out.immediate &= ~kFtz;
    return with_rounding(d, [&](auto r) -> Handler { return integer_to_float<To, From, r.value>; });
  } else if constexpr (!kToFloat) {
    return with_integral_rounding(
        d, [&](auto r) -> Handler { return float_to_integer<To, From, r.value>; });
  } else {
    if (d.has("rni") || d.has("rzi") || d.has("rmi") || d.has("rpi")) {
      return with_integral_rounding(
          d, [&](auto r) -> Handler { return float_to_float<To, From, r.value, true>; });
    }
    return with_rounding(
        d, [&](auto r) -> Handler { return float_to_float<To, From, r.value, false>; });
  }
}

template <class To>
Handler select_pair(Decode& d) {
  if (d.type() == "f32") {
    if (d.operands() != 3) return nullptr;  // .rs, with random bits
    lay_out(d, 32, Unit::convert);
    d.out.define = define_pair;
    if (d.has("rz")) return floats_to_pair<To, Rounding::zero>;
    return floats_to_pair<To, Rounding::nearest>;
  }
  return with_small(d.type(), [&]<class From>(type_identity<From>) -> Handler {
    d.result(0, 32);
    d.source(1, 16);
    return from_small_pair<To, From>;
  });
}

Handler select_small(Decode& d) {
  return with_small(d.type(1), [&]<class To>(type_identity<To>) -> Handler {
    if (d.operands() != (d.type() == "f32" ? 3u : 2u)) return nullptr;
    d.result(0, 16);
    for (size_t i = 1; i < d.operands(); ++i) d.source(i, 32);
    if (d.type() == "f32") return to_small_pair<To, float>;
    if (d.type() == "f16x2") return to_small_pair<To, Half>;
    if (d.type() == "bf16x2") return to_small_pair<To, Bfloat>;
    return nullptr;
  });
}

Handler select_pack(Decode& d) {
  const std::string_view to = d.modifier(2);  // pack.sat.u8.s32.b32
  if (to.size() < 2 || d.operands() < 3) return nullptr;
  const int64_t bits = to == "u16" || to == "s16" ? 16 : to[1] - '0';
  if (bits != 16 && bits != 8 && bits != 4 && bits != 2) return nullptr;
  lay_out(d, 32, Unit::convert);
  d.out.immediate = to[0] == 's' ? bits : -bits;
  return pack;
}

Handler select_convert(Decode& d) {
  d.out.unit = Unit::convert;
  if (d.has("pack")) return select_pack(d);
  if (d.has("rs") || d.has("scaled::n2::ue8m0")) return nullptr;
  d.out.immediate = flags_of(d);
  const std::string_view to = d.type(1);
  if (to == "f16x2") return select_pair<Half>(d);
  if (to == "bf16x2") return select_pair<Bfloat>(d);
  if (to == "tf32" && d.type() == "f32") {
    lay_out(d, 32, Unit::convert);
    if (d.has("rna")) return float_to_tf32<Rounding::away>;
    return d.has("rz") ? float_to_tf32<Rounding::zero> : float_to_tf32<Rounding::nearest>;
  }
  const Handler scalar = with_any(to, [&]<class To>(type_identity<To>) {
    return with_any(d.type(), [&]<class From>(type_identity<From>) -> Handler {
      if (d.operands() != 2) return nullptr;
      d.result(0, kBits<Cell<To>>);
      d.source(1, kBits<Cell<From>>);
      return select_scalar<To, From>(d);
    });
  });
  return scalar != nullptr ? scalar : select_small(d);
}

// --- cvta, isspacep

enum class Window { none, shared, local, param, constant, global };

// Where the address space of lane l begins in the host's memory.
template <Window kWindow>
uint64_t window_begin(const Warp& w, unsigned l) {
  if constexpr (kWindow == Window::shared) return reinterpret_cast<uint64_t>(w.block->shared);
  if constexpr (kWindow == Window::local) {
    return reinterpret_cast<uint64_t>(w.local) + l * w.local_stride;
  }
  if constexpr (kWindow == Window::param) {
    return reinterpret_cast<uint64_t>(w.block->grid->parameters.data());
  }
  return 0;
}

template <Window kWindow, bool kToSpace>
void convert_address(Warp& w, const Instruction& in, uint32_t lanes) {
  uint64_t from[kWarpLanes], values[kWarpLanes];
  const Operand& source = in.operands[1];
  if (source.bits == 32) {
    std::copy_n(w.source<uint32_t>(source), kWarpLanes, from);
  } else {
    std::copy_n(w.source<uint64_t>(source), kWarpLanes, from);
  }
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const uint64_t begin = window_begin<kWindow>(w, l);
    values[l] = kToSpace ? from[l] - begin : from[l] + begin;
  }
  if (in.operands[0].bits == 32) {
    uint32_t low[kWarpLanes];
    std::copy_n(values, kWarpLanes, low);
    store_lanes(w.result<uint32_t>(in.operands[0]), low, lanes);
  } else {
    store_lanes(w.result<uint64_t>(in.operands[0]), values, lanes);
  }
}

bool is_within(uint64_t address, const void* begin, uint64_t bytes) {
  return address - reinterpret_cast<uint64_t>(begin) < bytes;
}

bool is_constant(uint64_t address) {
  const Allocation* found = memory_map().find(address);
  return found != nullptr && found->kind == MemoryKind::constant && found->contains(address, 1);
}

template <Window kWindow>
bool is_in(const Warp& w, uint64_t address) {
  const Block& block = *w.block;
  const auto& parameters = block.grid->parameters;
  if constexpr (kWindow == Window::shared) {
    return is_within(address, block.shared, block.shared_bytes);
  }
  if constexpr (kWindow == Window::local) {
    return is_within(address, w.local, kWarpLanes * w.local_stride);
  }
  if constexpr (kWindow == Window::param) {
    return is_within(address, parameters.data(), parameters.size());
  }
  if constexpr (kWindow == Window::constant) return is_constant(address);
  // The rest: also where nothing is.
  return !is_in<Window::shared>(w, address) && !is_in<Window::local>(w, address) &&
         !is_in<Window::param>(w, address) && !is_constant(address);
}

template <Window kWindow>
void test_address(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint64_t* address = w.source<uint64_t>(in.operands[1]);
  uint32_t inside = 0;
  for_lanes(lanes, [&](unsigned l) {
    inside |= static_cast<uint32_t>(is_in<kWindow>(w, address[l])) << l;
  });
  w.set_predicate(in.operands[0], inside, lanes);
}

template <class F>
Handler with_window(const Decode& d, F f) {
  const auto is = [&](std::string_view space) {
    for (std::string_view m : d.ptx.modifiers) {
      if (m == space || (m.starts_with(space) && m.substr(space.size()).starts_with("::"))) {
        return true;
      }
    }
    return false;
  };
  if (is("shared")) return f(std::integral_constant<Window, Window::shared>{});
  if (is("local")) return f(std::integral_constant<Window, Window::local>{});
  if (is("param")) return f(std::integral_constant<Window, Window::param>{});
  if (is("const")) return f(std::integral_constant<Window, Window::constant>{});
  if (is("global")) return f(std::integral_constant<Window, Window::global>{});
  return nullptr;
}

Handler select_address(Decode& d) {
  lay_out(d, 64, Unit::move);
  return with_window(d, [&](auto window) {
    return with_flag(d.has("to"),
                     [&](auto to) -> Handler { return convert_address<window.value, to.value>; });
  });
}

Handler select_test(Decode& d) {
  d.result(0, 1);
  d.source(1, 64);
  if (d.out.operands == nullptr && d.operands() != 2) return nullptr;
  d.out.unit = Unit::compare;
  return with_window(d, [&](auto window) -> Handler { return test_address<window.value>; });
}

}  // namespace

std::span<const Opcode> convert_opcodes() {
  static constexpr Opcode kOpcodes[] = {
      {"cvt", select_convert},
      {"cvta", select_address},
      {"isspacep", select_test},
  };
  return kOpcodes;
}

}  // namespace longclock::emulator
