// SPDX-License-Identifier: Apache-2.0
#include "matrix_multiply.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <mutex>

#include "../checks/report.h"
#include "block.h"
#include "lanes.h"
#include "matrix_formats.h"

namespace longclock::emulator {
namespace {

constexpr unsigned kColumns = 8;        // of a panel, the inner loop
constexpr unsigned kMostValues = 1024;  // of an operand: m16n8k64 of s4
constexpr unsigned kMostSums = 256;

// What all instructions of one form share. Matrices are dense by panels: A by rows, B and the
// accumulator in panels of 8 columns, by rows within a panel.
struct Plan {
  Fragment a, b, c, d;
  std::vector<uint16_t> b_value, c_value, d_value;  // in the order of panels
  // Of float, double, int32_t or uint32_t values, as the handler knows.
  void (*decode_a)() = nullptr;
  void (*decode_b)() = nullptr;
};

std::vector<uint16_t> by_panels(const Fragment& fragment) {
  std::vector<uint16_t> out;
  out.reserve(fragment.value.size());
  for (unsigned panel = 0; panel < fragment.columns; panel += kColumns) {
    for (unsigned row = 0; row < fragment.rows; ++row) {
      for (unsigned c = 0; c < kColumns; ++c)
        out.push_back(fragment.value[row * fragment.columns + panel + c]);
    }
  }
  return out;
}

template <class Value>
void decode_registers(const Warp& w, const Operand* operands, const Fragment& fragment,
                      DecodeRow<Value> decode, Value* values) {
  const unsigned per_row = fragment.per_register() * kWarpLanes;
  for (unsigned j = 0; j < fragment.registers; ++j)
    decode(w.source<std::byte>(operands[j]), values + j * per_row);
}

// Multiply-add of one kind of elements, and what becomes of the sums.
template <class C, class D>
struct FloatKind {
  using Value = float;
  using Sum = double;  // products are exact in it
  using CValue = float;
  static double step(double sum, double a, double b) { return sum + a * b; }
  static DecodeRow<float> decode_c() { return sizeof(C) == 2 ? decode_f16 : decode_f32; }
  using Result = D;  // uint16_t or uint32_t
  static D finish(double sum) {
    if constexpr (sizeof(D) == 2)
      return to_f16(sum);
    else
      return to_f32(sum);
  }
};
struct DoubleKind {
  using Value = double;
  using Sum = double;
  using CValue = double;
  static double step(double sum, double a, double b) { return std::fma(a, b, sum); }
  static DecodeRow<double> decode_c() { return decode_f64; }
  using Result = uint64_t;
  static uint64_t finish(double sum) { return std::bit_cast<uint64_t>(sum); }
};
template <bool kSaturate>
struct IntegerKind {
  using Value = int32_t;
  using Sum = std::conditional_t<kSaturate, int64_t, uint32_t>;
  using CValue = int32_t;
  static Sum step(Sum sum, Sum a, Sum b) { return sum + a * b; }
  static DecodeRow<int32_t> decode_c() { return decode_s32; }
  using Result = uint32_t;
  static uint32_t finish(Sum sum) {
    if constexpr (kSaturate) {
      using Limits = std::numeric_limits<int32_t>;
      return static_cast<uint32_t>(std::clamp<int64_t>(sum, Limits::min(), Limits::max()));
    } else {
      return sum;
    }
  }
};
template <bool kAnd>
struct BitKind {
  using Value = uint32_t;
  using Sum = uint32_t;
  using CValue = uint32_t;
  static uint32_t step(uint32_t sum, uint32_t a, uint32_t b) {
    return sum + static_cast<uint32_t>(std::popcount(kAnd ? a & b : a ^ b));
  }
  static DecodeRow<uint32_t> decode_c() { return decode_words; }
  using Result = uint32_t;
  static uint32_t finish(uint32_t sum) { return sum; }
};

// One panel of 8 columns, four rows at a time: their sums stay in vector registers.
template <class Kind, class Sum>
void multiply_panel(const Sum* a, const Sum* b, Sum* c, unsigned rows, unsigned depth) {
  constexpr unsigned kRows = 4;
  for (unsigned r = 0; r < rows; r += kRows) {
    Sum sums[kRows][kColumns];
    std::memcpy(sums, c + r * kColumns, sizeof(sums));
    for (unsigned k = 0; k < depth; ++k) {
      const Sum* line = b + k * kColumns;
#pragma GCC unroll 4
      for (unsigned i = 0; i < kRows; ++i) {
        const Sum factor = a[(r + i) * depth + k];
#pragma GCC unroll 8
        for (unsigned n = 0; n < kColumns; ++n)
          sums[i][n] = Kind::step(sums[i][n], factor, line[n]);
      }
    }
    std::memcpy(c + r * kColumns, sums, sizeof(sums));
  }
}

// --- Definedness: an undefined element of A makes its row of D undefined, one of B its column, one
// of C itself.

bool any_undefined(const Warp& w, const Operand* operands, unsigned count) {
  uint32_t any = 0;
  for (unsigned i = 0; i < count; ++i) any |= w.undefined_lanes(operands[i]);
  return any != 0;
}

bool value_undefined(Warp& w, const Operand* operands, const Fragment& f, unsigned value) {
  const unsigned per = f.per_register();
  const unsigned lane = value / per % kWarpLanes;
  const Operand& operand = operands[value / (per * kWarpLanes)];
  if ((w.undefined_lanes(operand) >> lane & 1) == 0) return false;
  if (f.type.register_bits == 64) return w.bits_of<uint64_t>(operand)[lane] != 0;
  const uint32_t bits = w.bits_of<uint32_t>(operand)[lane];
  if (f.type.bits == 32) return bits != 0;
  return (bits >> (value % per * f.type.bits) & ((1u << f.type.bits) - 1)) != 0;
}

void mark_results(Warp& w, const Instruction& in, uint32_t lanes, const Plan& p) {
  const Operand* a = in.operands + p.d.registers;
  const Operand* b = a + p.a.registers;
  const Operand* c = b + p.b.registers;
  if (!any_undefined(w, a, p.a.registers + p.b.registers + p.c.registers)) {
    for (unsigned j = 0; j < p.d.registers; ++j) w.mark(in.operands[j], 0, lanes);
    return;
  }
  const unsigned m = p.a.rows, n = p.b.columns, depth = p.a.columns;
  bool rows[32] = {}, columns[32] = {};
  for (unsigned i = 0; i < m * depth; ++i)
    rows[i / depth] |= value_undefined(w, a, p.a, p.a.value[i]);
  for (unsigned i = 0; i < n * depth; ++i)
    columns[i % n] |= value_undefined(w, b, p.b, p.b.value[i]);
  uint32_t words[8][kWarpLanes] = {};
  uint32_t undefined[8] = {};
  const unsigned per = p.d.per_register();
  for (unsigned i = 0; i < m * n; ++i) {
    if (!rows[i / n] && !columns[i % n] && !value_undefined(w, c, p.c, p.c.value[i])) continue;
    const unsigned value = p.d.value[i], lane = value / per % kWarpLanes;
    const unsigned reg = value / (per * kWarpLanes);
    undefined[reg] |= 1u << lane;
    words[reg][lane] |= p.d.type.bits == 16 ? 0xffffu << (value % per * 16) : kAllLanes;
  }
  for (unsigned j = 0; j < p.d.registers; ++j) {
    const Operand& result = in.operands[j];
    w.mark(result, undefined[j], lanes);
    for_lanes(undefined[j] & lanes, [&](unsigned l) {
      if (p.d.type.register_bits == 64)
        w.bits_of<uint64_t>(result)[l] = ~uint64_t{0};
      else
        w.bits_of<uint32_t>(result)[l] = words[j][l];
    });
  }
}

template <class Kind>
void multiply(Warp& w, const Instruction& in, uint32_t lanes) {
  using Value = typename Kind::Value;
  using Sum = typename Kind::Sum;
  using Result = typename Kind::Result;
  if (lanes != kAllLanes) [[unlikely]]
    require_all_lanes(w, in, lanes);
  const Plan& p = *static_cast<const Plan*>(in.extra);
  const Operand* sources = in.operands + p.d.registers;

  alignas(64) Value raw[kMostValues];
  alignas(64) Sum a[kMostValues], b[kMostValues], sums[kMostSums];
  const auto gather = [](const auto* values, const std::vector<uint16_t>& places, Sum* out) {
    const size_t count = places.size();
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<Sum>(values[places[i]]);
  };
  decode_registers(w, sources, p.a, reinterpret_cast<DecodeRow<Value>>(p.decode_a), raw);
  gather(raw, p.a.value, a);
  sources += p.a.registers;
  decode_registers(w, sources, p.b, reinterpret_cast<DecodeRow<Value>>(p.decode_b), raw);
  gather(raw, p.b_value, b);
  sources += p.b.registers;
  alignas(64) typename Kind::CValue c[kMostSums];
  decode_registers(w, sources, p.c, Kind::decode_c(), c);
  gather(c, p.c_value, sums);

  const unsigned m = p.a.rows, depth = p.a.columns;
  for (unsigned panel = 0; panel < p.b.columns / kColumns; ++panel)
    multiply_panel<Kind>(a, b + panel * depth * kColumns, sums + panel * m * kColumns, m, depth);

  if (w.undefined != nullptr) mark_results(w, in, lanes, p);
  alignas(64) Result results[kMostSums];
  for (size_t i = 0; i < p.d_value.size(); ++i) results[p.d_value[i]] = Kind::finish(sums[i]);
  for (unsigned j = 0; j < p.d.registers; ++j) {
    using Word = std::conditional_t<sizeof(Result) == 8, uint64_t, uint32_t>;
    Word row[kWarpLanes];
    std::memcpy(row, results + j * kWarpLanes * (sizeof(Word) / sizeof(Result)), sizeof(row));
    store_lanes(w.result<Word>(in.operands[j]), row, lanes);
  }
}

using AnyDecode = void (*)();
template <class Value>
AnyDecode any(DecodeRow<Value> decode) {
  return reinterpret_cast<AnyDecode>(decode);
}

AnyDecode decode_of(std::string_view type) {
  if (type == "f16") return any<float>(decode_f16);
  if (type == "bf16") return any<float>(decode_bf16);
  if (type == "tf32") return any<float>(decode_tf32);
  if (type == "e4m3") return any<float>(decode_fp8<E4m3>);
  if (type == "e5m2") return any<float>(decode_fp8<E5m2>);
  if (type == "f64") return any<double>(decode_f64);
  if (type == "s8") return any<int32_t>(decode_bytes<int8_t>);
  if (type == "u8") return any<int32_t>(decode_bytes<uint8_t>);
  if (type == "s4") return any<int32_t>(decode_nibbles<true>);
  if (type == "u4") return any<int32_t>(decode_nibbles<false>);
  if (type == "b1") return any<uint32_t>(decode_words);
  return nullptr;
}

Handler handler_of(const MultiplyForm& f) {
  const auto one_of = [](std::string_view type, std::initializer_list<std::string_view> types) {
    return std::find(types.begin(), types.end(), type) != types.end();
  };
  if (one_of(f.a, {"s8", "u8"}) || one_of(f.a, {"s4", "u4"})) {
    if (f.d != "s32" || f.c != "s32" || f.a[1] != f.b[1] || f.b.size() != 2 ||
        !one_of(f.b, {"s8", "u8", "s4", "u4"}))
      return nullptr;
    return f.saturate ? multiply<IntegerKind<true>> : multiply<IntegerKind<false>>;
  }
  const bool fp8 = one_of(f.a, {"e4m3", "e5m2"}) && one_of(f.b, {"e4m3", "e5m2"});
  if (!fp8 && f.a != f.b) return nullptr;
  if (f.a == "f64") return f.d == "f64" && f.c == "f64" ? multiply<DoubleKind> : nullptr;
  if (f.a == "b1") {
    if (f.d != "s32" || f.c != "s32") return nullptr;
    return f.and_popc ? multiply<BitKind<true>> : multiply<BitKind<false>>;
  }
  const bool narrow_d = f.d == "f16", narrow_c = f.c == "f16";
  if ((!narrow_d && f.d != "f32") || (!narrow_c && f.c != "f32")) return nullptr;
  if ((narrow_d || narrow_c) && !one_of(f.a, {"f16", "e4m3", "e5m2"})) return nullptr;
  if (narrow_c)
    return narrow_d ? multiply<FloatKind<uint16_t, uint16_t>>
                    : multiply<FloatKind<uint16_t, uint32_t>>;
  return narrow_d ? multiply<FloatKind<uint32_t, uint16_t>>
                  : multiply<FloatKind<uint32_t, uint32_t>>;
}

// Kernels hold hundreds of instructions of one form: plans are shared, and stay.
const Plan* plan_for(const MultiplyForm& f, const unsigned registers[4]) {
  static std::mutex& mutex = *new std::mutex;
  static auto& plans = *new std::map<std::string, std::unique_ptr<const Plan>>;
  std::string key;
  for (const std::string_view part : {f.d, f.a, f.b, f.c}) key.append(part).push_back(' ');
  for (const unsigned number :
       {f.shape.m, f.shape.n, f.shape.k, registers[0], registers[1], registers[2], registers[3],
        unsigned{f.wmma}, unsigned{f.a_by_columns}, unsigned{f.b_by_columns}})
    key.append(std::to_string(number)).push_back(' ');
  const std::lock_guard lock(mutex);
  std::unique_ptr<const Plan>& slot = plans[key];
  if (slot != nullptr) return slot.get();

  Shape shape = f.shape;
  if (f.a == "b1") shape.k /= 32;
  auto plan = std::make_unique<Plan>();
  const auto make = [&](Role role, std::string_view type, bool by_columns, unsigned count) {
    return f.wmma ? wmma_fragment(role, shape, matrix_type(type), by_columns, count)
                  : mma_fragment(role, shape, matrix_type(type));
  };
  plan->d = make(Role::accumulator, f.d, false, registers[0]);
  plan->a = make(Role::a, f.a, f.a_by_columns, registers[1]);
  plan->b = make(Role::b, f.b, f.b_by_columns, registers[2]);
  plan->c = make(Role::accumulator, f.c, false, registers[3]);
  const Fragment* fragments[4] = {&plan->d, &plan->a, &plan->b, &plan->c};
  for (unsigned i = 0; i < 4; ++i) {
    const Fragment& fragment = *fragments[i];
    const bool accumulates = i == 0 || i == 3;
    const unsigned values = fragment.registers * kWarpLanes * fragment.per_register();
    if (fragment.registers == 0 || fragment.registers != registers[i] ||
        values > (accumulates ? kMostSums : kMostValues))
      return nullptr;
  }
  plan->b_value = by_panels(plan->b);
  plan->c_value = by_panels(plan->c);
  plan->d_value = by_panels(plan->d);
  plan->decode_a = decode_of(f.a);
  plan->decode_b = decode_of(f.b);
  slot = std::move(plan);
  return slot.get();
}

}  // namespace

Handler lay_out_multiply(Decode& d, const MultiplyForm& form) {
  if (d.operands() < 4 || form.shape.m == 0 || form.shape.m % 8 != 0 || form.shape.n % 8 != 0)
    return nullptr;
  const Handler handler = handler_of(form);
  if (handler == nullptr) return nullptr;
  unsigned registers[4];
  for (unsigned i = 0; i < 4; ++i) registers[i] = registers_of(d.operand(i));
  const Plan* plan = plan_for(form, registers);
  if (plan == nullptr) return nullptr;
  d.out.unit = Unit::tensor;
  d.out.own_definedness = true;
  d.out.extra = plan;
  const unsigned accumulator_bits = form.d == "f64" ? 64 : 32;
  d.result(0, accumulator_bits);
  d.source(1, accumulator_bits);
  d.source(2, accumulator_bits);
  d.source(3, accumulator_bits);
  all_lanes_are_members(d);
  return handler;
}

void all_lanes_are_members(Decode& d) {
  d.source_constant(kAllLanes, 32);
  d.out.member_mask = static_cast<int8_t>(d.out.count - 1);
}

void require_all_lanes(Warp& w, const Instruction& in, uint32_t lanes) {
  if (lanes == kAllLanes || !w.block->grid->checks(kCheckSync)) return;
  const unsigned missing = static_cast<unsigned>(std::countr_one(lanes));
  report(w, in, static_cast<unsigned>(std::countr_zero(lanes)), Fault::missing_lanes, 0,
         "a matrix instruction needs all 32 lanes of the warp; lane " + std::to_string(missing) +
             " is not here");
}

}  // namespace longclock::emulator
