// SPDX-License-Identifier: Apache-2.0
#include "fragments.h"

#include <algorithm>
#include <cctype>

namespace longclock::emulator {
namespace {

constexpr MatrixType kTypes[] = {
    {"f16", 16, 32}, {"bf16", 16, 32}, {"tf32", 32, 32}, {"f32", 32, 32}, {"f64", 64, 64},
    {"e4m3", 8, 32}, {"e5m2", 8, 32},  {"s8", 8, 32},    {"u8", 8, 32},   {"s4", 4, 32},
    {"u4", 4, 32},   {"b1", 32, 32},   {"s32", 32, 32},
};

void size(Fragment& fragment, Role role, Shape shape) {
  fragment.rows = role == Role::b ? shape.k : shape.m;
  fragment.columns = role == Role::a ? shape.k : shape.n;
  fragment.value.resize(size_t{fragment.rows} * fragment.columns);
}

}  // namespace

MatrixType matrix_type(std::string_view name) {
  for (const MatrixType& type : kTypes) {
    if (type.name == name) return type;
  }
  return {};
}

Shape parse_shape(std::string_view text) {
  unsigned values[3] = {0, 0, 0};
  constexpr char kLetters[3] = {'m', 'n', 'k'};
  size_t at = 0;
  for (int i = 0; i < 3; ++i) {
    if (at >= text.size() || text[at] != kLetters[i]) return {};
    for (++at; at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])); ++at)
      values[i] = values[i] * 10 + static_cast<unsigned>(text[at] - '0');
  }
  if (at != text.size()) return {};
  return {values[0], values[1], values[2]};
}

Fragment mma_fragment(Role role, Shape shape, MatrixType type) {
  Fragment fragment;
  fragment.type = type;
  if (type.bits == 0 || shape.n != 8 || (shape.m != 8 && shape.m != 16)) return fragment;
  size(fragment, role, shape);
  const unsigned per = type.per_register();
  const unsigned elements = fragment.rows * fragment.columns;
  // Four lanes side by side fill a group of columns of A (rows of B); eight lanes the other way.
  const unsigned group = role == Role::accumulator ? 8 : 4 * per;
  const unsigned along = role == Role::b ? fragment.rows : fragment.columns;
  if (elements == 0 || along % group != 0) return fragment;
  fragment.registers = elements / (32 * per);
  const unsigned halves = role == Role::b ? 1 : shape.m / 8;
  for (unsigned r = 0; r < fragment.rows; ++r) {
    for (unsigned c = 0; c < fragment.columns; ++c) {
      const unsigned across = role == Role::b ? c : r, position = role == Role::b ? r : c;
      unsigned reg, lane, sub;
      if (role == Role::accumulator) {
        lane = across % 8 * 4 + position / 2;
        const unsigned element = across / 8 * 2 + position % 2;
        reg = element / per;
        sub = element % per;
      } else {
        lane = across % 8 * 4 + position % group / per;
        reg = position / group * halves + across / 8;
        sub = position % per;
      }
      fragment.value[r * fragment.columns + c] =
          static_cast<uint16_t>((reg * kWarpLanes + lane) * per + sub);
    }
  }
  return fragment;
}

WmmaChunks wmma_chunks(Role role, Shape shape, MatrixType type, unsigned registers) {
  const unsigned elements = role == Role::a   ? shape.m * shape.k
                            : role == Role::b ? shape.k * shape.n
                                              : shape.m * shape.n;
  WmmaChunks out;
  const unsigned bytes = elements * type.bits / 8;
  const unsigned lane_bytes = registers * type.register_bits / 8;
  unsigned limit = 16;
  if (role == Role::accumulator) limit = 4 * type.bits / 8;
  out.bytes = std::min(lane_bytes, limit);
  if (out.bytes == 0 || bytes % out.bytes != 0 || lane_bytes % out.bytes != 0) return {};
  out.chunks = bytes / out.bytes;
  out.rounds = lane_bytes / out.bytes;
  if (out.rounds * kWarpLanes % out.chunks != 0) return {};
  return out;
}

Fragment wmma_fragment(Role role, Shape shape, MatrixType type, bool column_major,
                       unsigned registers) {
  Fragment fragment;
  fragment.type = type;
  if (type.bits == 0) return fragment;
  const WmmaChunks chunks = wmma_chunks(role, shape, type, registers);
  if (chunks.bytes == 0) return fragment;
  size(fragment, role, shape);
  fragment.registers = registers;
  const unsigned per = type.per_register();
  const unsigned per_chunk = chunks.bytes * 8 / type.bits;
  for (unsigned e = 0; e < chunks.chunks * per_chunk; ++e) {
    const unsigned chunk = e / per_chunk;
    const unsigned lane = chunk % kWarpLanes;
    const unsigned in_lane = chunk / kWarpLanes * per_chunk + e % per_chunk;
    const unsigned line = column_major ? fragment.rows : fragment.columns;
    const unsigned row = column_major ? e % line : e / line;
    const unsigned column = column_major ? e / line : e % line;
    fragment.value[row * fragment.columns + column] =
        static_cast<uint16_t>((in_lane / per * kWarpLanes + lane) * per + in_lane % per);
  }
  return fragment;
}

}  // namespace longclock::emulator
