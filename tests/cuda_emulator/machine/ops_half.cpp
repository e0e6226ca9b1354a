// SPDX-License-Identifier: Apache-2.0
// Arithmetic of f16 and bf16, alone and in pairs. It is done in f32 and rounded again. For sums and
// products that equals rounding once: f32 has more than twice the bits and two. For a fused
// multiply-add it does not; the sum is rounded to odd, or corrected where it is a tie.
#include <cmath>

#include "half.h"

namespace longclock::emulator {
namespace {

using std::type_identity;

// Flushes the subnormal numbers of a 16-bit format.
template <class Type>
void flush_row(uint16_t* row, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    row[i] = static_cast<uint16_t>((row[i] & Type::kExponentMask) == 0 ? row[i] & 0x8000 : row[i]);
  }
}

// result = f(sources...), which are floats, in all kParts * 32 values. `finish` may still change
// them, row[source][i] and values[i], before they are rounded.
template <class Type, unsigned kParts, bool kFtz, size_t kSources, class F, class G>
void map_halves(Warp& w, const Instruction& in, uint32_t lanes, F f, G finish) {
  constexpr unsigned kCount = kWarpLanes * kParts;
  alignas(64) float rows[kSources][kCount];
  alignas(64) float values[kCount];
  alignas(64) uint16_t halves[kCount];
  for (size_t s = 0; s < kSources; ++s) {
    const uint16_t* source = w.source<uint16_t>(in.operands[1 + s]);
    if constexpr (kFtz) {
      std::memcpy(halves, source, sizeof(halves));
      flush_row<Type>(halves, kCount);
      source = halves;
    }
    widen_row<Type>(source, rows[s], kCount);
  }
  [&]<size_t... I>(std::index_sequence<I...>) {
    for (unsigned i = 0; i < kCount; ++i) values[i] = f(rows[I][i]...);
  }(std::make_index_sequence<kSources>{});
  finish(rows, values);
  narrow_row<Type>(values, halves, kCount);
  if constexpr (kFtz) flush_row<Type>(halves, kCount);
  using Register = UnsignedOf<2 * kParts>;
  alignas(64) Register packed[kWarpLanes];
  std::memcpy(packed, halves, sizeof(packed));
  store_lanes(w.result<Register>(in.operands[0]), packed, lanes);
}

// The neighbour of `value` on the side of a * b + c, where there is something left of it: for
// values that lie half-way between two of the narrower format.
float off_the_tie(float value, float a, float b, float c) {
  const double product = static_cast<double>(a) * b;  // exact
  const double sum = add_to_odd<double>(product, c);  // on the same side of `value` as the truth
  if (sum == value || !std::isfinite(value)) return value;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((sum > value) == (value > 0) ? bits + 1 : bits - 1);
}

struct Add {
  static constexpr size_t kSources = 2;
  template <class Type>
  static float run(float a, float b) {
    return a + b;
  }
};
struct Subtract {
  static constexpr size_t kSources = 2;
  template <class Type>
  static float run(float a, float b) {
    return a - b;
  }
};
struct Multiply {
  static constexpr size_t kSources = 2;
  template <class Type>
  static float run(float a, float b) {
    return a * b;
  }
};
struct FusedMultiplyAdd {
  static constexpr size_t kSources = 3;
  template <class Type>
  static float run(float a, float b, float c) {
    // The product of two f16 is a float. That of two bf16 can be out of its range.
    if constexpr (std::is_same_v<Type, Half>) return add_to_odd(a * b, c);
    return std::fma(a, b, c);
  }
  template <class Type, unsigned kCount>
  static void finish(const float (*rows)[kCount], float* values) {
    if constexpr (std::is_same_v<Type, Bfloat>) {
      const auto tie = [&](unsigned i) {
        return (std::bit_cast<uint32_t>(values[i]) & 0xffff) == 0x8000;
      };
      unsigned ties = 0;
      for (unsigned i = 0; i < kCount; ++i) ties += tie(i);
      if (ties == 0) return;
      for (unsigned i = 0; i < kCount; ++i) {
        if (tie(i)) values[i] = off_the_tie(values[i], rows[0][i], rows[1][i], rows[2][i]);
      }
    }
  }
};
template <bool kMaximum, bool kNan, bool kXorSign>
struct Extremum {
  static constexpr size_t kSources = 2;
  template <class Type>
  static float run(float a, float b) {
    if constexpr (!kXorSign) return extremum<kMaximum, kNan>(a, b);
    const float result = extremum<kMaximum, kNan>(magnitude(a), magnitude(b));
    return with_sign(result, std::signbit(a) != std::signbit(b) ? -1.0f : 1.0f);
  }
};
struct Exponential {
  static constexpr size_t kSources = 1;
  template <class Type>
  static float run(float a) {
    return std::exp2(a);
  }
};
struct Tangent {
  static constexpr size_t kSources = 1;
  template <class Type>
  static float run(float a) {
    return std::tanh(a);
  }
};

enum class Clamp { none, saturate, rectify };

template <class Op, class Type, unsigned kParts, bool kFtz, Clamp kClamp>
void compute(Warp& w, const Instruction& in, uint32_t lanes) {
  constexpr unsigned kCount = kWarpLanes * kParts;
  map_halves<Type, kParts, kFtz, Op::kSources>(
      w, in, lanes, [](auto... sources) { return Op::template run<Type>(sources...); },
      [](const float (*rows)[kCount], float* values) {
        if constexpr (requires { Op::template finish<Type, kCount>(rows, values); }) {
          Op::template finish<Type, kCount>(rows, values);
        }
        // Rounding keeps 0, 1 and the order, so that it may come later.
        for (unsigned i = 0; i < kCount; ++i) {
          if constexpr (kClamp == Clamp::saturate) values[i] = saturate(values[i]);
          if constexpr (kClamp == Clamp::rectify) values[i] = rectify(values[i]);
        }
      });
}

template <class Type, unsigned kParts>
struct Shape {
  using type = Type;
  static constexpr unsigned parts = kParts;
};

// f(Shape<...>) for the four types, with the operands laid out; nullptr for others.
template <class F>
Handler with_shape(Decode& d, Unit unit, F f) {
  const auto lay = [&]<class Type, unsigned kParts>(Shape<Type, kParts> shape) -> Handler {
    lay_out(d, 16 * kParts, unit);
    if constexpr (kParts == 2) d.out.define = define_parts<uint16_t, 2>;
    return f(shape);
  };
  if (d.type() == "f16") return lay(Shape<Half, 1>{});
  if (d.type() == "f16x2") return lay(Shape<Half, 2>{});
  if (d.type() == "bf16") return lay(Shape<Bfloat, 1>{});
  if (d.type() == "bf16x2") return lay(Shape<Bfloat, 2>{});
  return nullptr;
}

template <class Op>
Handler select_plain(Decode& d, Unit unit) {
  return with_shape(d, unit, [&]<class Type, unsigned kParts>(Shape<Type, kParts>) {
    return with_flag(d.has("ftz"), [&](auto ftz) -> Handler {
      constexpr bool kFtz = ftz.value;
      if (d.has("sat")) return compute<Op, Type, kParts, kFtz, Clamp::saturate>;
      if (d.has("relu")) return compute<Op, Type, kParts, kFtz, Clamp::rectify>;
      return compute<Op, Type, kParts, kFtz, Clamp::none>;
    });
  });
}

// add.f32.f16 and the like: f32 arithmetic where the last source alone is an f32.
template <class Op, class Type, Rounding kRounding, bool kSat>
void compute_mixed(Warp& w, const Instruction& in, uint32_t lanes) {
  constexpr size_t kNarrow = Op::kSources - 1;
  alignas(64) float rows[Op::kSources][kWarpLanes];
  alignas(64) float values[kWarpLanes];
  for (size_t s = 0; s < kNarrow; ++s) {
    widen_row<Type>(w.source<uint16_t>(in.operands[1 + s]), rows[s], kWarpLanes);
  }
  std::memcpy(rows[kNarrow], w.source<float>(in.operands[1 + kNarrow]), sizeof(rows[kNarrow]));
  asm volatile("" : : "r"(&rows) : "memory");
  in_rounding_mode<kRounding>(values, [&] {
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      float result;
      if constexpr (kNarrow == 2) {
        result = std::fma(rows[0][l], rows[1][l], rows[2][l]);
      } else {
        result = Op::template run<Type>(rows[0][l], rows[1][l]);
      }
      result = canonical(result);
      values[l] = kSat ? saturate(result) : result;
    }
  });
  store_lanes(w.result<float>(in.operands[0]), values, lanes);
}

template <class Op>
Handler select_mixed(Decode& d) {
  d.result(0, 32);
  for (size_t i = 1; i < d.operands(); ++i) d.source(i, i + 1 == d.operands() ? 32 : 16);
  d.out.unit = Unit::float32;
  return with_rounding(d, [&](auto r) {
    return with_flag(d.has("sat"), [&](auto sat) -> Handler {
      if (d.type() == "f16") return compute_mixed<Op, Half, r.value, sat.value>;
      return compute_mixed<Op, Bfloat, r.value, sat.value>;
    });
  });
}

template <class Op>
Handler select_arithmetic(Decode& d) {
  if (d.has("oob")) return nullptr;
  if (d.type(1) == "f32" && (d.type() == "f16" || d.type() == "bf16")) return select_mixed<Op>(d);
  return select_plain<Op>(d, Unit::half);
}

template <class Op>
Handler select_function(Decode& d) {
  return select_plain<Op>(d, Unit::special);
}

template <bool kMaximum>
Handler select_extremum(Decode& d) {
  return with_shape(d, Unit::half, [&]<class Type, unsigned kParts>(Shape<Type, kParts>) {
    return with_flag(d.has("ftz"), [&](auto ftz) {
      return with_flag(d.has("NaN"), [&](auto nan) {
        return with_flag(d.has("xorsign"), [&](auto xor_sign) -> Handler {
          using Op = Extremum<kMaximum, nan.value, xor_sign.value>;
          return compute<Op, Type, kParts, ftz.value, Clamp::none>;
        });
      });
    });
  });
}

// abs and neg touch the sign alone, also that of a NaN.
template <class Type, unsigned kParts, bool kFtz, uint16_t kKeep, uint16_t kFlip>
void change_sign(Warp& w, const Instruction& in, uint32_t lanes) {
  map_parts<Rounding::nearest, uint16_t, kParts, 1>(w, in, lanes, [](uint16_t a) {
    const uint16_t x = static_cast<uint16_t>((a & kKeep) ^ kFlip);
    return static_cast<uint16_t>(kFtz && (x & Type::kExponentMask) == 0 ? x & 0x8000 : x);
  });
}

template <uint16_t kKeep, uint16_t kFlip>
Handler select_sign(Decode& d) {
  return with_shape(d, Unit::half, [&]<class Type, unsigned kParts>(Shape<Type, kParts>) {
    return with_flag(d.has("ftz"), [&](auto ftz) -> Handler {
      return change_sign<Type, kParts, ftz.value, kKeep, kFlip>;
    });
  });
}

}  // namespace

std::span<const Opcode> half_opcodes() {
  static constexpr Opcode kOpcodes[] = {
      {"add", select_arithmetic<Add>},       {"sub", select_arithmetic<Subtract>},
      {"mul", select_arithmetic<Multiply>},  {"fma", select_arithmetic<FusedMultiplyAdd>},
      {"min", select_extremum<false>},       {"max", select_extremum<true>},
      {"abs", select_sign<0x7fff, 0>},       {"neg", select_sign<0xffff, 0x8000>},
      {"ex2", select_function<Exponential>}, {"tanh", select_function<Tangent>},
  };
  return kOpcodes;
}

}  // namespace longclock::emulator
