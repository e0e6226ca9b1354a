// SPDX-License-Identifier: Apache-2.0
// Arithmetic of f32, f64 and pairs of f32. The host's own instructions in the rounding mode that
// PTX asks for; a fused multiply-add is one. The approximate functions of PTX have a bound on their
// error, not a value: here they are those of the host's library.
#include <cmath>

#include "float_lanes.h"

namespace longclock::emulator {
namespace {

using std::bool_constant;
using std::type_identity;

struct Add {
  static constexpr size_t kSources = 2;
  template <class T>
  static T run(T a, T b) {
    return a + b;
  }
};
struct Subtract {
  static constexpr size_t kSources = 2;
  template <class T>
  static T run(T a, T b) {
    return a - b;
  }
};
struct Multiply {
  static constexpr size_t kSources = 2;
  template <class T>
  static T run(T a, T b) {
    return a * b;
  }
};
struct FusedMultiplyAdd {
  static constexpr size_t kSources = 3;
  template <class T>
  static T run(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};
struct Divide {
  static constexpr size_t kSources = 2;
  template <class T>
  static T run(T a, T b) {
    return a / b;
  }
};
// div.approx: divisors beyond 2^126 count as infinite.
struct DivideApproximately {
  static constexpr size_t kSources = 2;
  static float run(float a, float b) {
    const bool huge = magnitude(b) > 0x1p126f;
    const float infinite = with_sign(std::numeric_limits<float>::infinity(), b);
    return a / (huge && b == b ? infinite : b);
  }
};
struct Reciprocal {
  static constexpr size_t kSources = 1;
  template <class T>
  static T run(T a) {
    return T(1) / a;
  }
};
struct SquareRoot {
  static constexpr size_t kSources = 1;
  template <class T>
  static T run(T a) {
    return std::sqrt(a);
  }
};
struct ReciprocalSquareRoot {
  static constexpr size_t kSources = 1;
  static float run(float a) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
  static double run(double a) { return 1.0 / std::sqrt(a); }
};
struct Sine {
  static constexpr size_t kSources = 1;
  static float run(float a) { return std::sin(a); }
};
struct Cosine {
  static constexpr size_t kSources = 1;
  static float run(float a) { return std::cos(a); }
};
struct Logarithm {
  static constexpr size_t kSources = 1;
  static float run(float a) { return std::log2(a); }
};
struct Exponential {
  static constexpr size_t kSources = 1;
  static float run(float a) { return std::exp2(a); }
};
struct Tangent {
  static constexpr size_t kSources = 1;
  static float run(float a) { return std::tanh(a); }
};
struct Absolute {
  static constexpr size_t kSources = 1;
  template <class T>
  static T run(T a) {
    return magnitude(a);
  }
};
struct Negate {
  static constexpr size_t kSources = 1;
  template <class T>
  static T run(T a) {
    return opposite(a);
  }
};
// copysign d, a, b: the sign of a, the magnitude of b.
struct CopySign {
  static constexpr size_t kSources = 2;
  template <class T>
  static T run(T a, T b) {
    return with_sign(b, a);
  }
};
template <bool kMaximum, bool kNan, bool kXorSign>
struct Extremum {
  static constexpr size_t kSources = 2;
  template <class T>
  static T run(T a, T b) {
    if constexpr (!kXorSign) return extremum<kMaximum, kNan>(a, b);
    const T result = extremum<kMaximum, kNan>(magnitude(a), magnitude(b));
    return with_sign(result, std::signbit(a) != std::signbit(b) ? T(-1) : T(1));
  }
};
template <bool kMaximum, bool kNan, bool kMagnitudes>
struct ExtremumOfThree {
  static constexpr size_t kSources = 3;
  template <class T>
  static T run(T a, T b, T c) {
    if constexpr (kMagnitudes) return run(magnitude(a), magnitude(b), magnitude(c), 0);
    return run(a, b, c, 0);
  }
  template <class T>
  static T run(T a, T b, T c, int) {
    return extremum<kMaximum, kNan>(extremum<kMaximum, kNan>(a, b), c);
  }
};

// kArithmetic: makes NaNs of its own; abs, neg and copysign only touch the sign.
template <class Op, class T, unsigned kParts, Rounding kRounding, bool kFtz, bool kSat,
          bool kArithmetic>
void compute(Warp& w, const Instruction& in, uint32_t lanes) {
  map_parts<kRounding, T, kParts, Op::kSources>(w, in, lanes, [](auto... sources) {
    T result = kFtz ? Op::run(flush(sources)...) : Op::run(sources...);
    if constexpr (kFtz) result = flush(result);
    if constexpr (kArithmetic) result = canonical(result);
    if constexpr (kSat) result = saturate(result);
    return result;
  });
}

// f(type_identity<T>) for f32 and f64; nullptr for other types.
template <class F>
Handler with_type(const Decode& d, F f) {
  if (d.type() == "f32") return f(type_identity<float>{});
  if (d.type() == "f64") return f(type_identity<double>{});
  return nullptr;
}

template <class T>
void lay_out_as(Decode& d, Unit unit) {
  lay_out(d, 8 * sizeof(T), unit);
}

template <class T>
constexpr Unit kUnit = sizeof(T) == 8 ? Unit::float64 : Unit::float32;

// add, sub, mul, fma, mad; f32x2 too.
template <class Op>
Handler select_arithmetic(Decode& d) {
  if (d.type() == "f32x2") {
    lay_out(d, 64, Unit::float32);
    d.out.define = define_parts<uint32_t, 2>;
    return with_rounding(d, [&](auto r) {
      return with_flag(d.has("ftz"), [&](auto ftz) -> Handler {
        return compute<Op, float, 2, r.value, ftz.value, false, true>;
      });
    });
  }
  return with_type(d, [&]<class T>(type_identity<T>) -> Handler {
    // add.f32.f16 and the like have a second type.
    lay_out_as<T>(d, kUnit<T>);
    return with_rounding(d, [&](auto r) -> Handler {
      if constexpr (sizeof(T) == 8) {
        return compute<Op, T, 1, r.value, false, false, true>;
      } else {
        return with_flag(d.has("ftz"), [&](auto ftz) {
          return with_flag(d.has("sat"), [&](auto sat) -> Handler {
            return compute<Op, T, 1, r.value, ftz.value, sat.value, true>;
          });
        });
      }
    });
  });
}

// Divisions and roots: .approx and .full, or correctly rounded.
template <class Exact, class Approximate>
Handler select_quotient(Decode& d) {
  const bool approximate = d.has("approx");
  return with_type(d, [&]<class T>(type_identity<T>) -> Handler {
    lay_out_as<T>(d, approximate || d.has("full") ? Unit::special : kUnit<T>);
    if constexpr (sizeof(T) == 8) {
      if (approximate) return nullptr;
      return with_rounding(
          d, [&](auto r) -> Handler { return compute<Exact, T, 1, r.value, false, false, true>; });
    } else {
      return with_flag(d.has("ftz"), [&](auto ftz) -> Handler {
        if (approximate) {
          return compute<Approximate, T, 1, Rounding::nearest, ftz.value, false, true>;
        }
        return with_rounding(d, [&](auto r) -> Handler {
          return compute<Exact, T, 1, r.value, ftz.value, false, true>;
        });
      });
    }
  });
}

// rcp.approx.ftz.f64, rsqrt.approx.ftz.f64: the upper words of source and result alone count.
template <class Op>
void compute_upper_word(Warp& w, const Instruction& in, uint32_t lanes) {
  map_parts<Rounding::nearest, double, 1, 1>(w, in, lanes, [](double a) {
    const auto upper = [](double x) {
      return std::bit_cast<double>(std::bit_cast<uint64_t>(x) & 0xffffffff00000000u);
    };
    const double source = flush(upper(a));
    // A NaN whose payload is in the lower word stays one.
    return a != a ? std::bit_cast<double>(0x7fffffff00000000u) : upper(flush(Op::run(source)));
  });
}

template <class Op, Handler (*kOtherwise)(Decode&)>
Handler select_upper_word(Decode& d) {
  if (d.type() != "f64" || !d.has("approx") || !d.has("ftz")) return kOtherwise(d);
  lay_out(d, 64, Unit::special);
  return compute_upper_word<Op>;
}

Handler select_reciprocal_root(Decode& d) {
  return with_type(d, [&]<class T>(type_identity<T>) -> Handler {
    lay_out_as<T>(d, Unit::special);
    if constexpr (sizeof(T) == 8) {
      return compute<ReciprocalSquareRoot, T, 1, Rounding::nearest, false, false, true>;
    } else {
      return with_flag(d.has("ftz"), [&](auto ftz) -> Handler {
        return compute<ReciprocalSquareRoot, T, 1, Rounding::nearest, ftz.value, false, true>;
      });
    }
  });
}

template <class Op>
Handler select_function(Decode& d) {
  if (d.type() != "f32") return nullptr;
  lay_out(d, 32, Unit::special);
  return with_flag(d.has("ftz"), [&](auto ftz) -> Handler {
    return compute<Op, float, 1, Rounding::nearest, ftz.value, false, true>;
  });
}

template <class Op>
Handler select_sign(Decode& d) {
  return with_type(d, [&]<class T>(type_identity<T>) -> Handler {
    lay_out_as<T>(d, kUnit<T>);
    return with_flag(d.has("ftz"), [&](auto ftz) -> Handler {
      return compute<Op, T, 1, Rounding::nearest, ftz.value, false, false>;
    });
  });
}

template <bool kMaximum>
Handler select_extremum(Decode& d) {
  const bool three = d.operands() == 4;
  return with_type(d, [&]<class T>(type_identity<T>) -> Handler {
    lay_out_as<T>(d, kUnit<T>);
    return with_flag(d.has("ftz"), [&](auto ftz) {
      return with_flag(d.has("NaN"), [&](auto nan) {
        return with_flag(d.has("abs"), [&](auto abs) -> Handler {
          constexpr bool kFtz = ftz.value, kNan = nan.value, kAbs = abs.value;
          if (three) {
            return compute<ExtremumOfThree<kMaximum, kNan, kAbs>, T, 1, Rounding::nearest, kFtz,
                           false, false>;
          }
          return compute<Extremum<kMaximum, kNan, kAbs>, T, 1, Rounding::nearest, kFtz, false,
                         false>;
        });
      });
    });
  });
}

}  // namespace

std::span<const Opcode> float_opcodes() {
  static constexpr Opcode kOpcodes[] = {
      {"add", select_arithmetic<Add>},
      {"sub", select_arithmetic<Subtract>},
      {"mul", select_arithmetic<Multiply>},
      {"fma", select_arithmetic<FusedMultiplyAdd>},
      {"mad", select_arithmetic<FusedMultiplyAdd>},
      {"div", select_quotient<Divide, DivideApproximately>},
      {"rcp", select_upper_word<Reciprocal, select_quotient<Reciprocal, Reciprocal>>},
      {"sqrt", select_quotient<SquareRoot, SquareRoot>},
      {"rsqrt", select_upper_word<ReciprocalSquareRoot, select_reciprocal_root>},
      {"sin", select_function<Sine>},
      {"cos", select_function<Cosine>},
      {"lg2", select_function<Logarithm>},
      {"ex2", select_function<Exponential>},
      {"tanh", select_function<Tangent>},
      {"abs", select_sign<Absolute>},
      {"neg", select_sign<Negate>},
      {"copysign", select_sign<CopySign>},
      {"min", select_extremum<false>},
      {"max", select_extremum<true>},
  };
  return kOpcodes;
}

}  // namespace longclock::emulator
