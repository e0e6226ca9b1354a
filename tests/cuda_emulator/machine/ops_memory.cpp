// SPDX-License-Identifier: Apache-2.0
// Loads, stores and hints. A handler is made for each pair of memory and register type and each
// length of vector; spaces and checks are check_access's business, which hands back one host
// pointer a lane. Rows of neighbouring addresses are copied as a whole.
#include <array>
#include <cstring>
#include <string>
#include <type_traits>

#include "../checks/report.h"
#include "../ptx/literals.h"
#include "memory_form.h"

namespace longclock::emulator {

MemoryForm memory_form(const Decode& d, size_t address) {
  MemoryForm form;
  for (std::string_view m : d.ptx.modifiers) {
    if (m == "global") {
      form.space = ptx::Space::global;
    } else if (m.starts_with("shared")) {
      form.space = ptx::Space::shared;
    } else if (m == "local") {
      form.space = ptx::Space::local;
    } else if (m.starts_with("const")) {
      form.space = ptx::Space::constant;
    } else if (m == "param" || m.starts_with("param::")) {
      form.space = d.parameter_space(address);
      form.frame = form.space == ptx::Space::local;
    } else if (m == "acquire") {
      form.strong = form.acquire = true;
    } else if (m == "release") {
      form.strong = form.release = true;
    } else if (m == "acq_rel") {
      form.strong = form.acquire = form.release = true;
    } else if (m == "volatile" || m == "relaxed" || m == "mmio" || m == "cv" || m == "wt") {
      form.strong = true;
    }
  }
  return form;
}

namespace {

constexpr unsigned kMaxElements = 8;

const MemoryForm& form_of(const Instruction& in) {
  return *static_cast<const MemoryForm*>(in.extra);
}

// The row of each element; the halves of a 128-bit register are two rows.
template <class R, unsigned V, class Row>
std::array<R*, V> rows_of(const MemoryForm& form, const Operand* operands, Row row) {
  std::array<R*, V> rows;
  for (unsigned k = 0; k < V; ++k) {
    rows[k] = form.wide ? row(operands[k / 2]) + (k & 1) * kWarpLanes : row(operands[k]);
  }
  return rows;
}
unsigned operand_of(const MemoryForm& form, unsigned element) {
  return form.wide ? element / 2 : element;
}

bool contiguous(const Access& a, std::byte* const* pointers) {
  const uint64_t first = reinterpret_cast<uint64_t>(pointers[0]);
  uint64_t different = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    different |= reinterpret_cast<uint64_t>(pointers[l]) ^ (first + l * uint64_t{a.bytes});
  }
  return different == 0;
}

// What lies at the lanes' pointers, element by element: [lane][V]. Lanes outside `lanes` are 0.
template <class T, unsigned V>
void fetch(const Access& a, std::byte* const* pointers, uint32_t lanes, T* out) {
  if (lanes == kAllLanes) {
    if (contiguous(a, pointers)) {
      std::memcpy(out, pointers[0], sizeof(T) * V * kWarpLanes);
    } else {
      for (unsigned l = 0; l < kWarpLanes; ++l) {
        std::memcpy(out + l * V, pointers[l], sizeof(T) * V);
      }
    }
    return;
  }
  std::memset(out, 0, sizeof(T) * V * kWarpLanes);
  for_lanes(lanes, [&](unsigned l) { std::memcpy(out + l * V, pointers[l], sizeof(T) * V); });
}

template <class T, unsigned V>
void put(const Access& a, std::byte* const* pointers, uint32_t lanes, const T* values) {
  if (lanes == kAllLanes && contiguous(a, pointers)) {
    std::memcpy(pointers[0], values, sizeof(T) * V * kWarpLanes);
    return;
  }
  for_lanes(lanes, [&](unsigned l) { std::memcpy(pointers[l], values + l * V, sizeof(T) * V); });
}

template <class R, class T, unsigned V>
void spread(const std::array<R*, V>& rows, const T* values, uint32_t lanes) {
  for (unsigned k = 0; k < V; ++k) {
    if constexpr (V == 1 && std::is_same_v<R, T>) {
      store_lanes(rows[0], values, lanes);
    } else {
      alignas(64) R row[kWarpLanes];
      for (unsigned l = 0; l < kWarpLanes; ++l) row[l] = static_cast<R>(values[l * V + k]);
      store_lanes(rows[k], row, lanes);
    }
  }
}

// Definedness of what was loaded. Widening the bits as the value is widened is exact: an undefined
// sign makes all its copies undefined.
template <class T, class R, unsigned V>
void define_loaded(Warp& w, const Instruction& in, const Access& a, uint32_t lanes,
                   uint32_t loaded) {
  const MemoryForm& form = form_of(in);
  const uint32_t tracked = tracked_lanes(a, loaded);
  alignas(64) T bits[kWarpLanes * V];
  uint64_t any = 0;
  if (tracked != 0) {
    fetch<T, V>(a, a.undefined, tracked, bits);
    uint64_t words[sizeof bits / 8];
    std::memcpy(words, bits, sizeof bits);
    for (uint64_t word : words) any |= word;
  }
  if (any == 0) {
    for (unsigned r = 0; r < in.results; ++r) w.mark(in.operands[r], 0, lanes);
    return;
  }
  const auto rows =
      rows_of<R, V>(form, in.operands, [&](const Operand& o) { return w.bits_of<R>(o); });
  spread<R, T, V>(rows, bits, lanes);
  uint32_t masks[V] = {};
  for (unsigned k = 0; k < V; ++k) {
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      masks[operand_of(form, k)] |= static_cast<uint32_t>(bits[l * V + k] != 0) << l;
    }
  }
  for (unsigned r = 0; r < in.results; ++r) w.mark(in.operands[r], masks[r], lanes);
}

template <class T, class R, unsigned V>
void load(Warp& w, const Instruction& in, uint32_t lanes) {
  const MemoryForm& form = form_of(in);
  Access a;
  a.space = form.space;
  a.bytes = sizeof(T) * V;
  a.read = true;
  a.strong = form.strong;
  a.silent = form.frame;
  a.lanes = lanes;
  gather_addresses(w, in, in.results, a);
  const uint32_t good = check_access(w, in, a);
  alignas(64) T values[kWarpLanes * V];
  if (!form.strong) {
    fetch<T, V>(a, a.data, good, values);
  } else {
    std::memset(values, 0, sizeof values);
    using U = std::make_unsigned_t<T>;
    for_lanes(good, [&](unsigned l) {
      for (unsigned k = 0; k < V; ++k) {
        values[l * V + k] =
            static_cast<T>(__atomic_load_n(reinterpret_cast<U*>(a.data[l]) + k, __ATOMIC_ACQUIRE));
      }
    });
    after_read(w, form, a, good);
  }
  spread<R, T, V>(
      rows_of<R, V>(form, in.operands, [&](const Operand& o) { return w.result<R>(o); }), values,
      lanes);
  if (w.undefined != nullptr) define_loaded<T, R, V>(w, in, a, lanes, good);
}

// A kernel parameter at a constant address: the same for every lane, and always defined.
template <class T, class R, unsigned V>
void load_parameter(Warp& w, const Instruction& in, uint32_t lanes) {
  const MemoryForm& form = form_of(in);
  const std::vector<std::byte>& parameters = w.block->grid->parameters;
  const uint64_t at =
      *w.source<uint64_t>(in.operands[in.results]) + static_cast<uint64_t>(in.immediate);
  if (at > parameters.size() || at + sizeof(T) * V > parameters.size()) {
    load<T, R, V>(w, in, lanes);  // reports
    return;
  }
  T values[V];
  std::memcpy(values, parameters.data() + at, sizeof values);
  const auto rows =
      rows_of<R, V>(form, in.operands, [&](const Operand& o) { return w.result<R>(o); });
  for (unsigned k = 0; k < V; ++k) {
    alignas(64) R row[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) row[l] = static_cast<R>(values[k]);
    store_lanes(rows[k], row, lanes);
  }
}

// Shared and local memory take undefined bits over; to global memory, where the host or other
// kernels read, no undefined value may go.
template <class T, class R, unsigned V>
void define_stored(Warp& w, const Instruction& in, const Access& a, uint32_t lanes) {
  const MemoryForm& form = form_of(in);
  const Operand* sources = in.operands + 1;
  uint32_t any = 0;
  for (unsigned s = 0; s + 1u < in.count; ++s) any |= w.undefined_lanes(sources[s]);
  any &= lanes;
  if (any == 0 && !a.tracked) return;
  alignas(64) T bits[kWarpLanes * V] = {};
  for (unsigned k = 0; k < V && any != 0; ++k) {
    const Operand& source = sources[operand_of(form, k)];
    const uint32_t mask = w.undefined_lanes(source) & any;
    if (mask == 0) continue;
    const R* row = w.bits_of<R>(source) + (form.wide ? (k & 1) * kWarpLanes : 0);
    for_lanes(mask, [&](unsigned l) {
      const T undefined = static_cast<T>(row[l]);
      if (undefined == 0) return;
      if (!is_global(w, a, l)) {
        bits[l * V + k] = undefined;
        return;
      }
      std::string what = "a value that nobody wrote is stored to global memory";
      if (V > 1) what += ", in element " + std::to_string(k) + " of the vector";
      report(w, in, l, Fault::uninitialised, a.address[l], what);
    });
  }
  if (!a.tracked) return;
  put<T, V>(a, a.undefined, tracked_lanes(a, lanes), bits);
}

template <class T, class R, unsigned V>
void store(Warp& w, const Instruction& in, uint32_t lanes) {
  const MemoryForm& form = form_of(in);
  alignas(64) T values[kWarpLanes * V];
  const auto rows =
      rows_of<const R, V>(form, in.operands + 1, [&](const Operand& o) { return w.source<R>(o); });
  for (unsigned k = 0; k < V; ++k) {
    for (unsigned l = 0; l < kWarpLanes; ++l) values[l * V + k] = static_cast<T>(rows[k][l]);
  }
  Access a;
  a.space = form.space;
  a.bytes = sizeof(T) * V;
  a.write = true;
  a.strong = form.strong;
  a.silent = form.frame;
  a.lanes = lanes;
  gather_addresses(w, in, 0, a);
  const std::byte* pointers[kWarpLanes];
  if (w.block->races != nullptr) {
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      pointers[l] = reinterpret_cast<const std::byte*>(values + l * V);
    }
    a.values = pointers;
  }
  const uint32_t good = check_access(w, in, a);
  if (good == 0) return;
  if (!form.strong) {
    put<T, V>(a, a.data, good, values);
  } else {
    before_write(w, form, a, good);
    for_lanes(good, [&](unsigned l) {
      for (unsigned k = 0; k < V; ++k) {
        __atomic_store_n(reinterpret_cast<T*>(a.data[l]) + k, values[l * V + k], __ATOMIC_RELEASE);
      }
    });
  }
  if (w.undefined != nullptr) define_stored<T, R, V>(w, in, a, good);
}

enum class Way { load, load_parameter, store };

template <Way way, class T, class R, unsigned V>
constexpr Handler handler() {
  if constexpr (way == Way::load) return load<T, R, V>;
  if constexpr (way == Way::load_parameter) return load_parameter<T, R, V>;
  if constexpr (way == Way::store) return store<T, R, V>;
}

template <Way way, class T, class R>
Handler with_elements(unsigned elements) {
  switch (elements) {
    case 1:
      return handler<way, T, R, 1>();
    case 2:
      return handler<way, T, R, 2>();
    case 4:
      return handler<way, T, R, 4>();
    case 8:
      if constexpr (sizeof(T) <= 4) return handler<way, T, R, 8>();
      return nullptr;
    default:
      return nullptr;
  }
}

// A register at least as wide as the type. Stores ignore its upper bits, signed or not.
template <Way way, class T>
Handler with_register(unsigned bits, unsigned elements) {
  if constexpr (sizeof(T) <= 2) {
    if (bits == 16) return with_elements<way, T, uint16_t>(elements);
  }
  if constexpr (sizeof(T) <= 4) {
    if (bits == 32) return with_elements<way, T, uint32_t>(elements);
  }
  return bits == 64 ? with_elements<way, T, uint64_t>(elements) : nullptr;
}

template <Way way>
Handler with_type(ptx::Type type, unsigned bits, unsigned elements) {
  if constexpr (way != Way::store) {
    if (type.is_signed && type.bits < bits) {
      switch (type.bits) {
        case 8:
          return with_register<way, int8_t>(bits, elements);
        case 16:
          return with_register<way, int16_t>(bits, elements);
        case 32:
          return with_register<way, int32_t>(bits, elements);
      }
    }
  }
  switch (type.bits) {
    case 8:
      return with_register<way, uint8_t>(bits, elements);
    case 16:
      return with_register<way, uint16_t>(bits, elements);
    case 32:
      return with_register<way, uint32_t>(bits, elements);
    case 64:
      return with_register<way, uint64_t>(bits, elements);
    case 128:
      return with_register<way, uint64_t>(64, elements);
  }
  return nullptr;
}

Unit unit_of(const MemoryForm& form, bool write) {
  if (form.frame) return Unit::load_param;
  switch (form.space) {
    case ptx::Space::shared:
      return write ? Unit::store_shared : Unit::load_shared;
    case ptx::Space::local:
      return write ? Unit::store_local : Unit::load_local;
    case ptx::Space::param:
    case ptx::Space::constant:
      return Unit::load_param;
    default:
      break;
  }
  return write ? Unit::store_global : Unit::load_global;
}

// The width of the rows of a vector, whose elements may be _; 0: they differ.
unsigned register_bits(const Decode& d, const ptx::Operand& operand, size_t first, unsigned type) {
  using Kind = ptx::Operand::Kind;
  const bool vector = operand.kind == Kind::vector;
  const size_t count = registers_of(operand);
  unsigned bits = 0;
  for (size_t k = 0; k < count; ++k) {
    const Kind kind = vector ? operand.elements[k].kind : operand.kind;
    if (kind == Kind::sink) continue;  // its row is wide enough for all
    const unsigned width = d.laid_out(first + k).bits;
    if (bits != 0 && bits != width) return 0;
    bits = width;
  }
  return bits != 0 ? bits : std::max(type, 16u);
}

Handler select_load(Decode& d) {
  if (d.operands() < 2) return nullptr;
  const ptx::Type type = ptx::type_of(d.type());
  if (type.bits == 0) return nullptr;
  MemoryForm form = memory_form(d, 1);
  const ptx::Operand& target = d.operand(0);
  form.wide = type.bits == 128;
  form.elements = static_cast<uint8_t>(registers_of(target) * (form.wide ? 2 : 1));
  d.result(0, form.wide ? 128 : 64);
  const unsigned bits = register_bits(d, target, 0, type.bits);
  d.address(1);
  d.out.unit = unit_of(form, false);
  *d.make_extra<MemoryForm>() = form;
  if (form.space == ptx::Space::param && d.laid_out(d.out.results).kind == Operand::constant) {
    return with_type<Way::load_parameter>(type, bits, form.elements);
  }
  d.out.own_definedness = true;
  return with_type<Way::load>(type, bits, form.elements);
}

Handler select_store(Decode& d) {
  if (d.operands() < 2) return nullptr;
  const ptx::Type type = ptx::type_of(d.type());
  if (type.bits == 0) return nullptr;
  MemoryForm form = memory_form(d, 0);
  const ptx::Operand& value = d.operand(1);
  form.wide = type.bits == 128;
  form.elements = static_cast<uint8_t>(registers_of(value) * (form.wide ? 2 : 1));
  d.address(0);
  d.source(1, std::max<unsigned>(type.bits, 16));
  const unsigned bits = register_bits(d, value, 1, type.bits);
  d.out.unit = unit_of(form, true);
  *d.make_extra<MemoryForm>() = form;
  d.out.own_definedness = true;
  return with_type<Way::store>(type, bits, form.elements);
}

void do_nothing(Warp&, const Instruction&, uint32_t) {}

Handler select_hint(Decode& d) {
  d.out.unit = Unit::move;
  return do_nothing;
}

void zero_policy(Warp& w, const Instruction& in, uint32_t lanes) {
  alignas(64) static constexpr uint64_t kZeros[kWarpLanes] = {};
  store_lanes(w.result<uint64_t>(in.operands[0]), kZeros, lanes);
}

Handler select_policy(Decode& d) {
  d.result(0, 64);
  d.out.unit = Unit::move;
  return zero_policy;
}

constexpr Opcode kOpcodes[] = {
    {"ld", select_load},
    {"ldu", select_load},
    {"st", select_store},
    {"prefetch", select_hint},
    {"prefetchu", select_hint},
    {"discard", select_hint},
    {"applypriority", select_hint},
    {"createpolicy", select_policy},
};

}  // namespace

std::span<const Opcode> memory_opcodes() { return kOpcodes; }

}  // namespace longclock::emulator
