// SPDX-License-Identifier: Apache-2.0
// mma, and the instructions that move 8 x 8 tiles of 16-bit elements: ldmatrix, stmatrix,
// movmatrix. Lane l holds elements 2 (l % 4) and the next of row l / 4 of a tile, in one register.
#include <cstring>
#include <string>

#include "../checks/report.h"
#include "matrix_multiply.h"
#include "memory_form.h"
#include "ops_common.h"

namespace longclock::emulator {
namespace {

// mma.sync.aligned.SHAPE.row.col{.satfinite}.D.A.B.C{.xor.popc | .and.popc}
Handler select_mma(Decode& d) {
  MultiplyForm form;
  size_t at = 0;
  while (at < d.modifiers() && form.shape.m == 0) form.shape = parse_shape(d.modifier(at++));
  if (d.modifier(at) != "row" || d.modifier(at + 1) != "col") return nullptr;
  at += 2;
  form.saturate = d.modifier(at) == "satfinite";
  if (form.saturate) ++at;
  form.d = d.modifier(at);
  form.a = d.modifier(at + 1);
  form.b = d.modifier(at + 2);
  form.c = d.modifier(at + 3);
  form.and_popc = d.modifier(at + 4) == "and";
  return lay_out_multiply(d, form);
}

constexpr unsigned kTile = 8;
constexpr unsigned kRowBytes = kTile * 2;
using Tile = uint16_t[kTile][kTile];

// A tile to the registers of the lanes, and back.
template <bool kTransposed>
void deal(const Tile& tile, uint32_t* words) {
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const unsigned r = l / 4, c = l % 4 * 2;
    words[l] = kTransposed ? tile[c][r] | uint32_t{tile[c + 1][r]} << 16
                           : tile[r][c] | uint32_t{tile[r][c + 1]} << 16;
  }
}
template <bool kTransposed>
void collect(const uint32_t* words, Tile& tile) {
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const unsigned r = l / 4, c = l % 4 * 2;
    (kTransposed ? tile[c][r] : tile[r][c]) = static_cast<uint16_t>(words[l]);
    (kTransposed ? tile[c + 1][r] : tile[r][c + 1]) = static_cast<uint16_t>(words[l] >> 16);
  }
}

// Its undefined bits, 0 in the lanes that are defined.
void undefined_words(Warp& w, const Operand& operand, uint32_t* words) {
  for (unsigned l = 0; l < kWarpLanes; ++l) words[l] = undefined_bits<uint32_t>(w, operand, l);
}
void define_words(Warp& w, const Operand& operand, const uint32_t* words, uint32_t lanes) {
  define_result<uint32_t>(w, operand, lanes, [&](unsigned l) { return words[l]; });
}

struct TileForm {
  ptx::Space space = ptx::Space::none;
  unsigned tiles = 0;
};

// The rows that ldmatrix and stmatrix touch: lane l has the address of row l % 8 of tile l / 8.
void rows_of(const Warp& w, const Instruction& in, unsigned operand, uint32_t lanes, Access& a) {
  const TileForm& form = *static_cast<const TileForm*>(in.extra);
  a.space = form.space;
  a.bytes = kRowBytes;
  a.lanes = lanes & static_cast<uint32_t>((uint64_t{1} << (form.tiles * kTile)) - 1);
  gather_addresses(w, in, operand, a);
}

template <bool kTransposed>
void load_tiles(Warp& w, const Instruction& in, uint32_t lanes) {
  require_all_lanes(w, in, lanes);
  Access a;
  a.read = true;
  rows_of(w, in, in.results, lanes, a);
  const uint32_t good = check_access(w, in, a);
  Tile tiles[4] = {}, undefined[4] = {};
  for_lanes(good, [&](unsigned l) {
    std::memcpy(tiles[l / kTile][l % kTile], a.data[l], kRowBytes);
    if (a.undefined[l] != nullptr)
      std::memcpy(undefined[l / kTile][l % kTile], a.undefined[l], kRowBytes);
  });
  for (unsigned t = 0; t < in.results; ++t) {
    uint32_t words[kWarpLanes];
    deal<kTransposed>(tiles[t], words);
    store_lanes(w.result<uint32_t>(in.operands[t]), words, lanes);
    if (w.undefined == nullptr) continue;
    deal<kTransposed>(undefined[t], words);
    define_words(w, in.operands[t], words, lanes);
  }
}

template <bool kTransposed>
void store_tiles(Warp& w, const Instruction& in, uint32_t lanes) {
  require_all_lanes(w, in, lanes);
  const unsigned count = static_cast<const TileForm*>(in.extra)->tiles;
  Tile tiles[4] = {}, undefined[4] = {};
  for (unsigned t = 0; t < count; ++t) {
    const Operand& source = in.operands[1 + t];
    collect<kTransposed>(w.source<uint32_t>(source), tiles[t]);
    if (w.undefined == nullptr) continue;
    uint32_t words[kWarpLanes];
    undefined_words(w, source, words);
    collect<kTransposed>(words, undefined[t]);
  }
  Access a;
  a.write = true;
  rows_of(w, in, 0, lanes, a);
  const std::byte* values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l)
    values[l] = reinterpret_cast<const std::byte*>(tiles[l / kTile][l % kTile]);
  a.values = values;
  const uint32_t good = check_access(w, in, a);
  for_lanes(good, [&](unsigned l) {
    std::memcpy(a.data[l], values[l], kRowBytes);
    if (a.undefined[l] != nullptr)
      std::memcpy(a.undefined[l], undefined[l / kTile][l % kTile], kRowBytes);
  });
}

void transpose_tile(Warp& w, const Instruction& in, uint32_t lanes) {
  require_all_lanes(w, in, lanes);
  Tile tile;
  uint32_t words[kWarpLanes], undefined[kWarpLanes];
  collect<false>(w.source<uint32_t>(in.operands[1]), tile);
  deal<true>(tile, words);
  if (w.undefined != nullptr) {
    undefined_words(w, in.operands[1], undefined);
    collect<false>(undefined, tile);
    deal<true>(tile, undefined);
    define_words(w, in.operands[0], undefined, lanes);
  }
  store_lanes(w.result<uint32_t>(in.operands[0]), words, lanes);
}

// .x1, .x2 or .x4 of m8n8 tiles of b16, in shared memory; 0: another form.
unsigned tiles_of(const Decode& d) {
  if (!d.has("m8n8") || d.type() != "b16") return 0;
  return d.has("x1") ? 1 : d.has("x2") ? 2 : d.has("x4") ? 4 : 0;
}

void lay_out_tiles(Decode& d, size_t address, unsigned tiles) {
  TileForm& form = *d.make_extra<TileForm>();
  form.space = memory_form(d, address).space;
  form.tiles = tiles;
  d.out.own_definedness = true;
  all_lanes_are_members(d);
}

Handler select_ldmatrix(Decode& d) {
  const unsigned tiles = tiles_of(d);
  if (tiles == 0 || d.operands() != 2) return nullptr;
  d.result(0, 32);
  if (d.out.results != tiles) return nullptr;
  d.address(1);
  d.out.unit = Unit::load_shared;
  lay_out_tiles(d, 1, tiles);
  return d.has("trans") ? load_tiles<true> : load_tiles<false>;
}

Handler select_stmatrix(Decode& d) {
  const unsigned tiles = tiles_of(d);
  if (tiles == 0 || d.operands() != 2) return nullptr;
  d.address(0);
  d.source(1, 32);
  if (d.out.count != 1 + tiles) return nullptr;
  d.out.unit = Unit::store_shared;
  lay_out_tiles(d, 0, tiles);
  return d.has("trans") ? store_tiles<true> : store_tiles<false>;
}

Handler select_movmatrix(Decode& d) {
  if (!d.has("m8n8") || !d.has("trans") || d.type() != "b16" || d.operands() != 2) return nullptr;
  d.result(0, 32);
  d.source(1, 32);
  d.out.unit = Unit::shuffle;
  d.out.own_definedness = true;
  all_lanes_are_members(d);
  return transpose_tile;
}

constexpr Opcode kOpcodes[] = {
    {"mma", select_mma},
    {"ldmatrix", select_ldmatrix},
    {"stmatrix", select_stmatrix},
    {"movmatrix", select_movmatrix},
};

}  // namespace

std::span<const Opcode> matrix_opcodes() { return kOpcodes; }

}  // namespace longclock::emulator
