// SPDX-License-Identifier: Apache-2.0
// mov: copies, packing and unpacking of vectors, special registers.
#include <algorithm>
#include <chrono>

#include "block.h"
#include "ops_common.h"
#include "program.h"

namespace longclock::emulator {
namespace {

template <class T>
void copy(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<T, T>(w, in, lanes, [](T a) { return a; });
}
template <class T>
void define_copy(Warp& w, const Instruction& in, uint32_t lanes) {
  define_lanes<T, T>(w, in, lanes, [](Shadowed<T> a) { return a.bits; });
}

void copy_predicate(Warp& w, const Instruction& in, uint32_t lanes) {
  w.set_predicate(in.operands[0], w.predicate(in.operands[1]), lanes);
}
void define_copy_predicate(Warp& w, const Instruction& in, uint32_t lanes) {
  w.mark(in.operands[0], w.undefined_lanes(in.operands[1]), lanes);
}

// mov.b32 d, {a, b}: the first element is the lowest.
template <class Whole, class Part>
void pack(Warp& w, const Instruction& in, uint32_t lanes) {
  constexpr unsigned kParts = sizeof(Whole) / sizeof(Part);
  Whole values[kWarpLanes] = {};
  for (unsigned p = 0; p < kParts; ++p) {
    const Part* row = w.source<Part>(in.operands[1 + p]);
    for (unsigned l = 0; l < kWarpLanes; ++l)
      values[l] |= static_cast<Whole>(static_cast<Whole>(row[l]) << (p * kBits<Part>));
  }
  store_lanes(w.result<Whole>(in.operands[0]), values, lanes);
}
template <class Whole, class Part>
void define_pack(Warp& w, const Instruction& in, uint32_t lanes) {
  define_result<Whole>(w, in.operands[0], lanes, [&](unsigned l) {
    Whole bits = 0;
    for (unsigned p = 0; p < sizeof(Whole) / sizeof(Part); ++p) {
      bits |= static_cast<Whole>(static_cast<Whole>(undefined_bits<Part>(w, in.operands[1 + p], l))
                                 << (p * kBits<Part>));
    }
    return bits;
  });
}

template <class Whole, class Part>
void unpack(Warp& w, const Instruction& in, uint32_t lanes) {
  constexpr unsigned kParts = sizeof(Whole) / sizeof(Part);
  Whole whole[kWarpLanes];
  std::memcpy(whole, w.source<Whole>(in.operands[kParts]), sizeof(whole));
  for (unsigned p = 0; p < kParts; ++p) {
    Part values[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l)
      values[l] = static_cast<Part>(whole[l] >> (p * kBits<Part>));
    store_lanes(w.result<Part>(in.operands[p]), values, lanes);
  }
}
template <class Whole, class Part>
void define_unpack(Warp& w, const Instruction& in, uint32_t lanes) {
  constexpr unsigned kParts = sizeof(Whole) / sizeof(Part);
  Whole whole[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l)
    whole[l] = undefined_bits<Whole>(w, in.operands[kParts], l);
  for (unsigned p = 0; p < kParts; ++p) {
    define_result<Part>(w, in.operands[p], lanes, [&](unsigned l) {
      return static_cast<Part>(whole[l] >> (p * kBits<Part>));
    });
  }
}

// mov.b128 d, {lo, hi} and back: a register of 128 bits is two rows of 64.
void pack_128(Warp& w, const Instruction& in, uint32_t lanes) {
  uint64_t halves[2][kWarpLanes];
  for (unsigned p = 0; p < 2; ++p)
    std::memcpy(halves[p], w.source<uint64_t>(in.operands[1 + p]), sizeof(halves[p]));
  for (unsigned p = 0; p < 2; ++p)
    store_lanes(w.result<uint64_t>(in.operands[0]) + p * kWarpLanes, halves[p], lanes);
}
void unpack_128(Warp& w, const Instruction& in, uint32_t lanes) {
  uint64_t halves[2][kWarpLanes];
  std::memcpy(halves, w.source<uint64_t>(in.operands[2]), sizeof(halves));
  for (unsigned p = 0; p < 2; ++p)
    store_lanes(w.result<uint64_t>(in.operands[p]), halves[p], lanes);
}

Handler select_pack(Decode& d, bool packs) {
  const size_t parts = d.operand(packs ? 1 : 0).elements.size();
  const unsigned whole = d.type() == "b128"                       ? 128
                         : d.type() == "b64" || d.type() == "u64" ? 64
                                                                  : 32;
  const auto part = static_cast<unsigned>(whole / parts);
  d.result(0, packs ? whole : part);
  d.source(1, packs ? part : whole);
  const auto choose = [&]<class Whole, class Part>() -> Handler {
    d.out.define = packs ? define_pack<Whole, Part> : define_unpack<Whole, Part>;
    return packs ? pack<Whole, Part> : unpack<Whole, Part>;
  };
  if (whole == 128 && parts == 2) return packs ? pack_128 : unpack_128;
  if (whole == 64 && parts == 2) return choose.operator()<uint64_t, uint32_t>();
  if (whole == 64 && parts == 4) return choose.operator()<uint64_t, uint16_t>();
  if (whole == 32 && parts == 2) return choose.operator()<uint32_t, uint16_t>();
  return nullptr;
}

// --- Special registers

using Special = uint64_t (*)(const Warp& w, unsigned lane);

template <unsigned kAxis>
uint64_t thread_index(const Warp& w, unsigned lane) {
  uint32_t t[3];
  w.block->thread_of(w, lane, t);
  return t[kAxis];
}
template <unsigned kAxis>
uint64_t block_size(const Warp& w, unsigned) {
  return w.block->grid->config.block[kAxis];
}
template <unsigned kAxis>
uint64_t block_index(const Warp& w, unsigned) {
  return w.block->index[kAxis];
}
template <unsigned kAxis>
uint64_t grid_size(const Warp& w, unsigned) {
  return w.block->grid->config.grid[kAxis];
}
template <uint64_t kValue>
uint64_t always(const Warp&, unsigned) {
  return kValue;
}
uint64_t nanoseconds(const Warp&, unsigned) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

constexpr std::pair<std::string_view, Special> kSpecials[] = {
    {"%tid.x", thread_index<0>},
    {"%tid.y", thread_index<1>},
    {"%tid.z", thread_index<2>},
    {"%ntid.x", block_size<0>},
    {"%ntid.y", block_size<1>},
    {"%ntid.z", block_size<2>},
    {"%ctaid.x", block_index<0>},
    {"%ctaid.y", block_index<1>},
    {"%ctaid.z", block_index<2>},
    {"%nctaid.x", grid_size<0>},
    {"%nctaid.y", grid_size<1>},
    {"%nctaid.z", grid_size<2>},
    {"%laneid", [](const Warp&, unsigned l) { return uint64_t{l}; }},
    {"%warpid", [](const Warp& w, unsigned) { return uint64_t{w.index}; }},
    {"%nwarpid", [](const Warp& w, unsigned) { return uint64_t{w.block->warps.size()}; }},
    {"%smid", [](const Warp& w, unsigned) { return w.block->linear_index; }},
    {"%nsmid",
     [](const Warp& w, unsigned) {
       const uint32_t* g = w.block->grid->config.grid;
       return uint64_t{g[0]} * g[1] * g[2];
     }},
    {"%gridid", always<0>},
    {"%lanemask_eq", [](const Warp&, unsigned l) { return uint64_t{1} << l; }},
    {"%lanemask_lt", [](const Warp&, unsigned l) { return (uint64_t{1} << l) - 1; }},
    {"%lanemask_le", [](const Warp&, unsigned l) { return (uint64_t{2} << l) - 1; }},
    {"%lanemask_gt",
     [](const Warp&, unsigned l) { return uint64_t{0xffffffff} & ~((uint64_t{2} << l) - 1); }},
    {"%lanemask_ge",
     [](const Warp&, unsigned l) { return uint64_t{0xffffffff} & ~((uint64_t{1} << l) - 1); }},
    {"%clock", nanoseconds},
    {"%clock64", nanoseconds},
    {"%clock_hi", [](const Warp& w, unsigned l) { return nanoseconds(w, l) >> 32; }},
    {"%globaltimer", nanoseconds},
    {"%globaltimer_lo", nanoseconds},
    {"%globaltimer_hi", [](const Warp& w, unsigned l) { return nanoseconds(w, l) >> 32; }},
    // Where cooperative groups keep the state of a grid's barrier: high and low half of the
    // address.
    {"%envreg0", always<0>},
    {"%envreg1", [](const Warp& w, unsigned) { return w.block->grid->sync_workspace >> 32; }},
    {"%envreg2",
     [](const Warp& w, unsigned) { return w.block->grid->sync_workspace & 0xffffffff; }},
    {"%dynamic_smem_size",
     [](const Warp& w, unsigned) { return uint64_t{w.block->grid->config.dynamic_shared}; }},
    {"%total_smem_size", [](const Warp& w, unsigned) { return uint64_t{w.block->shared_bytes}; }},
    {"%aggr_smem_size", [](const Warp& w, unsigned) { return uint64_t{w.block->shared_bytes}; }},
    {"%reserved_smem_offset_begin", always<0>},
    {"%reserved_smem_offset_end", always<0>},
    {"%reserved_smem_offset_cap", always<0>},
    {"%reserved_smem_offset_0", always<0>},
    {"%reserved_smem_offset_1", always<0>},
    // A cluster is one block.
    {"%is_explicit_cluster", always<0>},
    {"%cluster_ctaid.x", always<0>},
    {"%cluster_ctaid.y", always<0>},
    {"%cluster_ctaid.z", always<0>},
    {"%cluster_nctaid.x", always<1>},
    {"%cluster_nctaid.y", always<1>},
    {"%cluster_nctaid.z", always<1>},
    {"%cluster_ctarank", always<0>},
    {"%cluster_nctarank", always<1>},
    {"%clusterid.x", block_index<0>},
    {"%clusterid.y", block_index<1>},
    {"%clusterid.z", block_index<2>},
    {"%nclusterid.x", grid_size<0>},
    {"%nclusterid.y", grid_size<1>},
    {"%nclusterid.z", grid_size<2>},
    {"WARP_SZ", always<kWarpLanes>},
};

template <class T>
void read_special(Warp& w, const Instruction& in, uint32_t lanes) {
  const Special read = *static_cast<const Special*>(in.extra);
  T* row = w.result<T>(in.operands[0]);
  for_lanes(lanes, [&](unsigned l) { row[l] = static_cast<T>(read(w, l)); });
}

Handler select_special(Decode& d) {
  const auto* found = std::find_if(std::begin(kSpecials), std::end(kSpecials),
                                   [&](const auto& s) { return s.first == d.operand(1).name; });
  if (found == std::end(kSpecials)) return nullptr;
  *d.make_extra<Special>() = found->second;
  return for_integer(d.type(), [&]<class T>() -> Handler {
    d.result(0, kBits<T>);
    return read_special<std::make_unsigned_t<T>>;
  });
}

}  // namespace

Handler select_mov(Decode& d) {
  using Kind = ptx::Operand::Kind;
  d.out.unit = Unit::move;
  if (d.operand(1).kind == Kind::special) return select_special(d);
  if (d.operand(1).kind == Kind::vector) return select_pack(d, true);
  if (d.operand(0).kind == Kind::vector) return select_pack(d, false);
  const std::string_view type = d.type();
  if (type == "pred") {
    d.result(0, 1);
    d.source(1, 1);
    d.out.define = define_copy_predicate;
    return copy_predicate;
  }
  const auto plain = [&]<class T>() -> Handler {
    d.result(0, kBits<T>);
    d.source(1, kBits<T>);
    d.out.define = define_copy<T>;
    return copy<T>;
  };
  if (type == "f16" || type == "bf16") return plain.operator()<uint16_t>();
  if (type == "f32" || type == "f16x2" || type == "bf16x2") return plain.operator()<uint32_t>();
  if (type == "f64") return plain.operator()<uint64_t>();
  return for_integer(type, [&]<class T>() -> Handler {
    return plain.template operator()<std::make_unsigned_t<T>>();
  });
}

}  // namespace longclock::emulator
