// SPDX-License-Identifier: Apache-2.0
// atom, red and fences. Lanes go in their order. Global memory is shared with the other workers, so
// that an operation there is a compare-and-swap loop of the host; shared memory belongs to one.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>
#include <string>

#include "../checks/report.h"
#include "../counters/counters.h"
#include "../ptx/literals.h"
#include "half.h"
#include "memory_form.h"

namespace longclock::emulator {
namespace {

const MemoryForm& form_of(const Instruction& in) {
  return *static_cast<const MemoryForm*>(in.extra);
}

float flushed(float f) { return std::fpclassify(f) == FP_SUBNORMAL ? std::copysign(0.0f, f) : f; }

// An operation is a function of the word in memory and the operands; `global`: where it lies.
// kReads: whether the old word decides the new one.
template <class U>
struct Exchange {
  static constexpr bool kReads = false;
  static U apply(U, U value, U, bool) { return value; }
};
template <class U>
struct CompareAndSwap {
  static constexpr bool kReads = true;
  static U apply(U old, U compare, U value, bool) { return old == compare ? value : old; }
};
#define LONGCLOCK_ATOMIC(Name, expression)              \
  template <class U>                                    \
  struct Name {                                         \
    static constexpr bool kReads = true;                \
    static U apply(U old, U value, U, bool global) {    \
      using S [[maybe_unused]] = std::make_signed_t<U>; \
      (void)global;                                     \
      return static_cast<U>(expression);                \
    }                                                   \
  };
LONGCLOCK_ATOMIC(Add, old + value)
LONGCLOCK_ATOMIC(And, old& value)
LONGCLOCK_ATOMIC(Or, old | value)
LONGCLOCK_ATOMIC(Xor, old ^ value)
LONGCLOCK_ATOMIC(Increment, old >= value ? 0 : old + 1)
LONGCLOCK_ATOMIC(Decrement, old == 0 || old > value ? value : old - 1)
LONGCLOCK_ATOMIC(Min, std::min(old, value))
LONGCLOCK_ATOMIC(Max, std::max(old, value))
LONGCLOCK_ATOMIC(MinSigned, std::min(static_cast<S>(old), static_cast<S>(value)))
LONGCLOCK_ATOMIC(MaxSigned, std::max(static_cast<S>(old), static_cast<S>(value)))
#undef LONGCLOCK_ATOMIC

template <class U>
struct AddDouble {
  static constexpr bool kReads = true;
  static U apply(U old, U value, U, bool) {
    return std::bit_cast<U>(std::bit_cast<double>(old) + std::bit_cast<double>(value));
  }
};
// Subnormals live in shared memory; global memory's adders flush them.
template <class U>
struct AddFloat {
  static constexpr bool kReads = true;
  static U apply(U old, U value, U, bool global) {
    float a = std::bit_cast<float>(old), b = std::bit_cast<float>(value);
    if (global) a = flushed(a), b = flushed(b);
    const float sum = global ? flushed(a + b) : a + b;
    return sum != sum ? 0x7fffffffu : std::bit_cast<U>(sum);
  }
};

enum class Binary { add, min, max };

// One or two halves in a word, whose sum a float holds well enough to be rounded once more; a NaN
// loses against a number in min and max.
template <class U, bool kBfloat, Binary kWhat>
struct Halves {
  static constexpr bool kReads = true;
  static uint16_t one(uint16_t old, uint16_t value) {
    const float a = kBfloat ? bfloat_to_float(old) : half_to_float(old);
    const float b = kBfloat ? bfloat_to_float(value) : half_to_float(value);
    const float r = kWhat == Binary::add   ? a + b
                    : kWhat == Binary::min ? std::fmin(a, b)
                                           : std::fmax(a, b);
    return kBfloat ? float_to_bfloat(r) : float_to_half(r);
  }
  static U apply(U old, U value, U, bool) {
    if constexpr (sizeof(U) == 2) {
      return one(old, value);
    } else {
      return one(static_cast<uint16_t>(old), static_cast<uint16_t>(value)) |
             static_cast<U>(
                 one(static_cast<uint16_t>(old >> 16), static_cast<uint16_t>(value >> 16)))
                 << 16;
    }
  }
};

template <class Op, class U>
U update(std::byte* at, U first, U second, bool global) {
  U old;
  if (!global) {
    std::memcpy(&old, at, sizeof old);
    const U next = Op::apply(old, first, second, false);
    std::memcpy(at, &next, sizeof next);
    return old;
  }
  U* word = reinterpret_cast<U*>(at);
  old = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &old, Op::apply(old, first, second, true), true,
                                      __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
  }
  return old;
}

Access access_of(Warp& w, const Instruction& in, uint32_t lanes, uint32_t bytes) {
  Access a;
  a.space = form_of(in).space;
  a.bytes = bytes;
  a.read = a.write = a.strong = true;
  a.lanes = lanes;
  gather_addresses(w, in, in.results, a);
  return a;
}

uint32_t begin(Warp& w, const Instruction& in, Access& a) {
  const uint32_t good = check_access(w, in, a);
  if (w.block->counters != nullptr) {
    w.block->counters->atomics += static_cast<unsigned>(std::popcount(good));
  }
  before_write(w, form_of(in), a, good);
  return good;
}

// Operands must be defined, and memory too unless it is only replaced; then its undefined bits go
// to the result. What was written counts as defined, so that one mistake makes one report.
void define(Warp& w, const Instruction& in, const Access& a, uint32_t lanes, uint32_t good,
            bool reads, unsigned element_bytes) {
  uint32_t operands = 0;
  for (unsigned s = in.results + 1u; s < in.count; ++s)
    operands |= w.undefined_lanes(in.operands[s]);
  for_lanes(operands & good, [&](unsigned l) {
    report(w, in, l, Fault::uninitialised, a.address[l],
           "an operand of an atomic operation was never written");
  });
  uint32_t results = 0;
  for_lanes(tracked_lanes(a, good), [&](unsigned l) {
    std::byte* bits = a.undefined[l];
    if (std::all_of(bits, bits + a.bytes, [](std::byte b) { return b == std::byte{0}; })) return;
    if (reads) {
      report(w, in, l, Fault::uninitialised, a.address[l],
             "an atomic operation reads memory that nobody wrote");
    } else if (in.results != 0) {
      results |= 1u << l;
      const unsigned per_result = a.bytes / in.results;
      for (unsigned r = 0; r < in.results; ++r) {
        const unsigned row = in.operands[r].bits == 128 ? 8 : element_bytes;
        for (unsigned half = 0; half * row < per_result; ++half) {
          std::memcpy(w.undefined_bits + in.operands[r].offset + half * 256 + l * row,
                      bits + r * per_result + half * row, row);
        }
      }
    }
    std::memset(bits, 0, a.bytes);
  });
  for (unsigned r = 0; r < in.results; ++r) w.mark(in.operands[r], results, lanes);
}

template <class Op, class U>
void atomic(Warp& w, const Instruction& in, uint32_t lanes) {
  constexpr bool kCompares = std::is_same_v<Op, CompareAndSwap<U>>;
  constexpr unsigned kMost = 8;
  const MemoryForm& form = form_of(in);
  const unsigned elements = form.elements;
  Access a = access_of(w, in, lanes, static_cast<uint32_t>(sizeof(U) * elements));
  const uint32_t good = begin(w, in, a);
  const Operand* sources = in.operands + in.results + 1;
  alignas(64) U old[kMost][kWarpLanes];
  if (in.results != 0) std::memset(old, 0, sizeof(U) * kWarpLanes * elements);
  for (unsigned k = 0; k < elements; ++k) {
    const U* first = w.source<U>(sources[k]);
    const U* second = kCompares ? w.source<U>(sources[1]) : first;
    for_lanes(good, [&](unsigned l) {
      old[k][l] = update<Op, U>(a.data[l] + k * sizeof(U), first[l], second[l], is_global(w, a, l));
    });
  }
  after_read(w, form, a, good);
  if (w.undefined != nullptr) define(w, in, a, lanes, good, Op::kReads, sizeof(U));
  for (unsigned r = 0; r < in.results; ++r) {
    store_lanes(w.result<U>(in.operands[r]), old[r], lanes);
  }
}

// 128 bits: under a lock, which all of their operations share.
template <bool kCompares>
void atomic_wide(Warp& w, const Instruction& in, uint32_t lanes) {
  static std::mutex mutex;
  struct Wide {
    uint64_t low, high;
    bool operator==(const Wide&) const = default;
  };
  Access a = access_of(w, in, lanes, 16);
  const uint32_t good = begin(w, in, a);
  const Operand* sources = in.operands + in.results + 1;
  const auto source = [&](unsigned s, unsigned l) {
    const uint64_t* row = w.source<uint64_t>(sources[s]);
    return Wide{row[l], row[kWarpLanes + l]};
  };
  alignas(64) uint64_t old[2][kWarpLanes] = {};
  {
    const std::lock_guard lock(mutex);
    for_lanes(good, [&](unsigned l) {
      Wide present;
      std::memcpy(&present, a.data[l], sizeof present);
      old[0][l] = present.low;
      old[1][l] = present.high;
      if (kCompares && !(present == source(0, l))) return;
      const Wide next = source(kCompares ? 1 : 0, l);
      std::memcpy(a.data[l], &next, sizeof next);
    });
  }
  after_read(w, form_of(in), a, good);
  if (w.undefined != nullptr) define(w, in, a, lanes, good, kCompares, 8);
  if (in.results == 0) return;
  store_lanes(w.result<uint64_t>(in.operands[0]), old[0], lanes);
  store_lanes(w.result<uint64_t>(in.operands[0]) + kWarpLanes, old[1], lanes);
}

template <class U>
Handler integer_handler(std::string_view op, bool is_signed) {
  if (op == "add") return atomic<Add<U>, U>;
  if (op == "and") return atomic<And<U>, U>;
  if (op == "or") return atomic<Or<U>, U>;
  if (op == "xor") return atomic<Xor<U>, U>;
  if (op == "exch") return atomic<Exchange<U>, U>;
  if (op == "cas") return atomic<CompareAndSwap<U>, U>;
  if (op == "inc") return atomic<Increment<U>, U>;
  if (op == "dec") return atomic<Decrement<U>, U>;
  if (op == "min") return is_signed ? atomic<MinSigned<U>, U> : atomic<Min<U>, U>;
  if (op == "max") return is_signed ? atomic<MaxSigned<U>, U> : atomic<Max<U>, U>;
  return nullptr;
}

template <class U, bool kBfloat>
Handler half_handler(std::string_view op) {
  if (op == "add") return atomic<Halves<U, kBfloat, Binary::add>, U>;
  if (op == "min") return atomic<Halves<U, kBfloat, Binary::min>, U>;
  if (op == "max") return atomic<Halves<U, kBfloat, Binary::max>, U>;
  return nullptr;
}

Handler handler(std::string_view op, std::string_view type) {
  if (type == "f32") return op == "add" ? atomic<AddFloat<uint32_t>, uint32_t> : nullptr;
  if (type == "f64") return op == "add" ? atomic<AddDouble<uint64_t>, uint64_t> : nullptr;
  if (type == "f16") return half_handler<uint16_t, false>(op);
  if (type == "bf16") return half_handler<uint16_t, true>(op);
  if (type == "f16x2") return half_handler<uint32_t, false>(op);
  if (type == "bf16x2") return half_handler<uint32_t, true>(op);
  const ptx::Type known = ptx::type_of(type);
  switch (known.bits) {
    case 16:
      return op == "cas" || op == "exch" ? integer_handler<uint16_t>(op, false) : nullptr;
    case 32:
      return integer_handler<uint32_t>(op, known.is_signed);
    case 64:
      return integer_handler<uint64_t>(op, known.is_signed);
    case 128:
      return op == "cas" ? atomic_wide<true> : op == "exch" ? atomic_wide<false> : nullptr;
  }
  return nullptr;
}

Handler select_any(Decode& d, size_t address, bool has_result) {
  static constexpr std::string_view kOps[] = {"add", "and", "or",  "xor", "exch",
                                              "cas", "inc", "dec", "min", "max"};
  std::string_view op;
  for (size_t i = 0; i < d.modifiers() && op.empty(); ++i) {
    if (std::find(std::begin(kOps), std::end(kOps), d.modifier(i)) != std::end(kOps)) {
      op = d.modifier(i);
    }
  }
  // ".noftz" stands before the type, or before the vector that stands before the type.
  std::string_view type = d.type();
  if (ptx::type_of(type).bits == 0) {
    for (size_t i = 0; i < d.modifiers(); ++i) {
      if (ptx::type_of(d.modifier(i)).bits != 0) type = d.modifier(i);
    }
  }
  const size_t values = op == "cas" ? 2 : 1;
  if (op.empty() || d.operands() < address + 1 + values) return nullptr;
  const Handler run = handler(op, type);
  if (run == nullptr) return nullptr;
  const unsigned bits = ptx::type_of(type).bits;
  MemoryForm form = memory_form(d, address);
  const ptx::Operand& value = d.operand(address + 1);
  if (value.kind == ptx::Operand::Kind::vector) {
    form.elements = static_cast<uint8_t>(value.elements.size());
    if (op == "cas" || bits == 128 || form.elements > 8) return nullptr;
  }
  form.strong = true;
  if (has_result) d.result(0, bits);
  d.address(address);
  for (size_t i = 0; i < values; ++i) d.source(address + 1 + i, bits);
  for (size_t k = 0; k < d.out.count; ++k) {
    if (k != d.out.results && d.laid_out(k).bits != bits) return nullptr;
  }
  *d.make_extra<MemoryForm>() = form;
  d.out.unit = Unit::atomic;
  d.out.own_definedness = true;
  return run;
}

Handler select_atom(Decode& d) {
  return select_any(d, 1, d.operands() > 1 && d.operand(0).kind != ptx::Operand::Kind::sink);
}
Handler select_red(Decode& d) { return d.has("async") ? nullptr : select_any(d, 0, false); }

void fence(Warp& w, const Instruction&, uint32_t) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (w.block->races != nullptr) w.block->races->fence(w);
}

void do_nothing(Warp&, const Instruction&, uint32_t) {}

Handler select_fence(Decode& d) {
  d.out.unit = Unit::sync;
  // Between the generic and other views of memory, which are one here.
  if (d.modifier(0) == "proxy") return do_nothing;
  return fence;
}

constexpr Opcode kOpcodes[] = {
    {"atom", select_atom}, {"red", select_red}, {"membar", select_fence}, {"fence", select_fence}};

}  // namespace

std::span<const Opcode> atomic_opcodes() { return kOpcodes; }

}  // namespace longclock::emulator
