// SPDX-License-Identifier: Apache-2.0
// wmma: fragments whose layout only these instructions know. A load or store is a series of
// accesses in which each lane moves one chunk of its fragment, or one element where an accumulator
// lies in memory by columns.
#include <cstring>
#include <string>

#include "../checks/report.h"
#include "matrix_multiply.h"
#include "memory_form.h"
#include "ops_common.h"

namespace longclock::emulator {
namespace {

constexpr unsigned kMostBytes = 64;  // of a fragment in one lane: 16 registers

// Of wmma.load and wmma.store.
struct Transfer {
  ptx::Space space = ptx::Space::none;
  WmmaChunks chunks;
  unsigned registers = 0;
  unsigned register_bytes = 4;
  unsigned element_bits = 16;
  unsigned line = 0;       // elements that lie side by side in memory
  unsigned columns = 0;    // of an accumulator by columns: elements in a row
  bool scattered = false;  // that is what it is
  bool has_stride = false;
  unsigned stride_unit = 1;        // 32 for b1, whose elements are words here
  uint8_t stride = 0, values = 0;  // operands

  unsigned piece_bytes() const { return scattered ? element_bits / 8 : chunks.bytes; }
  unsigned pieces() const { return chunks.rounds * chunks.bytes / piece_bytes(); }
  unsigned lane_bytes() const { return registers * register_bytes; }
  // Where piece `piece` of lane l begins, in bytes from the first element.
  uint64_t offset(unsigned piece, unsigned l, uint64_t stride_elements) const {
    const unsigned per_chunk = chunks.bytes / piece_bytes();
    const unsigned chunk = (piece / per_chunk * kWarpLanes + l) % chunks.chunks;
    const uint64_t element =
        uint64_t{chunk} * (chunks.bytes * 8 / element_bits) + piece % per_chunk;
    const uint64_t major = scattered ? element % columns : element / line;
    const uint64_t minor = scattered ? element / columns : element % line;
    return (major * stride_elements + minor) * element_bits / 8;
  }
};

const Transfer& transfer_of(const Instruction& in) {
  return *static_cast<const Transfer*>(in.extra);
}

struct LaneBytes {
  alignas(8) std::byte at[kWarpLanes][kMostBytes];
};

// Calls f(access, byte of the lane) for each piece, with addresses in place.
template <class F>
void for_pieces(const Warp& w, const Instruction& in, unsigned address, uint32_t lanes, F f) {
  const Transfer& t = transfer_of(in);
  Access first;
  gather_addresses(w, in, address, first);
  const uint32_t* strides = t.has_stride ? w.source<uint32_t>(in.operands[t.stride]) : nullptr;
  for (unsigned piece = 0; piece < t.pieces(); ++piece) {
    Access a;
    a.space = t.space;
    a.bytes = t.piece_bytes();
    a.lanes = lanes;
    a.undefined_address = first.undefined_address;
    if (t.has_stride && w.undefined != nullptr)
      a.undefined_address |= w.undefined_lanes(in.operands[t.stride]);
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      const uint64_t stride = strides != nullptr ? strides[l] / t.stride_unit : t.line;
      a.address[l] = first.address[l] + t.offset(piece, l, stride);
    }
    f(a, piece * t.piece_bytes());
  }
}

// A register of the lanes from their bytes, and back.
template <class Word>
void take_register(const LaneBytes& bytes, unsigned j, Word* row) {
  for (unsigned l = 0; l < kWarpLanes; ++l)
    std::memcpy(row + l, bytes.at[l] + j * sizeof(Word), sizeof(Word));
}
template <class Word>
void put_register(LaneBytes& bytes, unsigned j, const Word* row, uint32_t lanes) {
  for_lanes(lanes, [&](unsigned l) {
    std::memcpy(bytes.at[l] + j * sizeof(Word), row + l, sizeof(Word));
  });
}

template <class Word>
void load_fragment(Warp& w, const Instruction& in, uint32_t lanes) {
  require_all_lanes(w, in, lanes);
  LaneBytes values{}, undefined{};
  for_pieces(w, in, in.results, lanes, [&](Access& a, unsigned at) {
    a.read = true;
    for_lanes(check_access(w, in, a), [&](unsigned l) {
      std::memcpy(values.at[l] + at, a.data[l], a.bytes);
      if (a.undefined[l] != nullptr) std::memcpy(undefined.at[l] + at, a.undefined[l], a.bytes);
    });
  });
  for (unsigned j = 0; j < in.results; ++j) {
    Word row[kWarpLanes];
    take_register(values, j, row);
    store_lanes(w.result<Word>(in.operands[j]), row, lanes);
    if (w.undefined == nullptr) continue;
    take_register(undefined, j, row);
    define_result<Word>(w, in.operands[j], lanes, [&](unsigned l) { return row[l]; });
  }
}

template <class Word>
void store_fragment(Warp& w, const Instruction& in, uint32_t lanes) {
  require_all_lanes(w, in, lanes);
  const Transfer& t = transfer_of(in);
  LaneBytes values{}, undefined{};
  for (unsigned j = 0; j < t.registers; ++j) {
    const Operand& source = in.operands[t.values + j];
    put_register(values, j, w.source<Word>(source), kAllLanes);
    if (w.undefined != nullptr)
      put_register(undefined, j, w.bits_of<Word>(source), w.undefined_lanes(source));
  }
  for_pieces(w, in, 0, lanes, [&](Access& a, unsigned at) {
    const std::byte* pointers[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) pointers[l] = values.at[l] + at;
    a.write = true;
    a.values = pointers;
    for_lanes(check_access(w, in, a), [&](unsigned l) {
      std::memcpy(a.data[l], pointers[l], a.bytes);
      if (w.undefined == nullptr) return;
      const std::byte* bits = undefined.at[l] + at;
      bool any = false;
      for (unsigned i = 0; i < a.bytes; ++i) any |= bits[i] != std::byte{0};
      if (any && is_global(w, a, l)) {
        report(w, in, l, Fault::uninitialised, a.address[l],
               "a value that nobody wrote is stored to global memory");
        any = false;
      }
      if (a.undefined[l] == nullptr) return;
      if (any)
        std::memcpy(a.undefined[l], bits, a.bytes);
      else
        std::memset(a.undefined[l], 0, a.bytes);
    });
  });
}

// wmma.{load.a, load.b, load.c, store.d}.sync.aligned.LAYOUT.SHAPE{.SPACE}.TYPE
Handler select_transfer(Decode& d, bool store) {
  const size_t address = store ? 0 : 1, fragment = store ? 1 : 0;
  if (d.operands() < 2 || d.operands() > 3) return nullptr;
  Role role = Role::accumulator;
  if (!store && d.modifier(1) == "a") role = Role::a;
  if (!store && d.modifier(1) == "b") role = Role::b;
  Shape shape;
  for (size_t i = 0; i < d.modifiers() && shape.m == 0; ++i) shape = parse_shape(d.modifier(i));
  const MatrixType type = matrix_type(d.type());
  if (type.bits == 0 || shape.m == 0) return nullptr;
  const bool words = d.type() == "b1";
  if (words) shape.k /= 32;
  const bool by_columns = d.has("col");
  if (!by_columns && !d.has("row")) return nullptr;

  Transfer& t = *d.make_extra<Transfer>();
  t.space = memory_form(d, address).space;
  t.element_bits = type.bits;
  t.register_bytes = type.register_bits / 8;
  t.registers = registers_of(d.operand(fragment));
  t.chunks = wmma_chunks(role, shape, type, t.registers);
  if (t.chunks.bytes == 0 || t.lane_bytes() > kMostBytes) return nullptr;
  const unsigned rows = role == Role::b ? shape.k : shape.m;
  const unsigned columns = role == Role::a ? shape.k : shape.n;
  t.line = by_columns ? rows : columns;
  t.columns = columns;
  t.scattered = by_columns && role == Role::accumulator;
  t.has_stride = d.operands() == 3;
  t.stride_unit = words ? 32 : 1;

  if (store) {
    d.address(0);
    d.source(1, type.register_bits);
    t.values = 1;
  } else {
    d.result(0, type.register_bits);
    d.address(1);
  }
  if (t.has_stride) {
    t.stride = d.out.count;
    d.source(2, 32);
  }
  const bool shared = t.space == ptx::Space::shared;
  d.out.unit = store ? (shared ? Unit::store_shared : Unit::store_global)
                     : (shared ? Unit::load_shared : Unit::load_global);
  d.out.own_definedness = true;
  all_lanes_are_members(d);
  if (type.register_bits == 64) return store ? store_fragment<uint64_t> : load_fragment<uint64_t>;
  return store ? store_fragment<uint32_t> : load_fragment<uint32_t>;
}

// wmma.mma{.xor.popc | .and.popc}.sync.aligned.ALAYOUT.BLAYOUT.SHAPE.D{.A.B}.C{.satfinite | .rn}
Handler select_mma(Decode& d) {
  MultiplyForm form;
  form.wmma = true;
  size_t at = 0;
  while (at < d.modifiers() && form.shape.m == 0) form.shape = parse_shape(d.modifier(at++));
  if (form.shape.m == 0 || at < 3) return nullptr;
  form.a_by_columns = d.modifier(at - 3) == "col";
  form.b_by_columns = d.modifier(at - 2) == "col";
  form.and_popc = d.has("and");
  form.saturate = d.has("satfinite");
  const size_t types = d.modifiers() - at - (form.saturate || d.has("rn") ? 1 : 0);
  form.d = d.modifier(at);
  form.c = d.modifier(at + types - 1);
  form.a = types == 4 ? d.modifier(at + 1) : "f16";
  form.b = types == 4 ? d.modifier(at + 2) : "f16";
  return types == 2 || types == 4 ? lay_out_multiply(d, form) : nullptr;
}

Handler select_wmma(Decode& d) {
  if (d.modifier(0) == "load") return select_transfer(d, false);
  if (d.modifier(0) == "store") return select_transfer(d, true);
  return d.modifier(0) == "mma" ? select_mma(d) : nullptr;
}

constexpr Opcode kOpcodes[] = {{"wmma", select_wmma}};

}  // namespace

std::span<const Opcode> wmma_opcodes() { return kOpcodes; }

}  // namespace longclock::emulator
