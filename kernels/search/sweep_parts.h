// SPDX-License-Identifier: Apache-2.0
// How a sweep of many candidates cuts sequences into parts, a thread block each: whole tiles of
// keys, as many to a part as to any other, or one more.
#pragma once

#include <cstdint>

#include "longclock/common/inline.h"

namespace longclock {

constexpr int kTileKeys = 64;

// Into how many parts each sequence is cut: such that two blocks a multiprocessor have work, and
// where parts stay long enough to pay for loading the candidates, several waves of them, so that
// unequal ones even out. candidate_tiles: that have candidates.
constexpr unsigned sweep_parts(int64_t candidate_tiles, int64_t longest, int multiprocessors) {
  const int64_t resident = 2 * int64_t{multiprocessors};
  const auto parts = [&](int64_t blocks, int64_t shortest) {
    const int64_t most = (longest + shortest - 1) / shortest;
    return blocks / candidate_tiles < most ? blocks / candidate_tiles : most;
  };
  const int64_t few = parts(resident, 2 * kTileKeys), many = parts(4 * resident, 16 * kTileKeys);
  const int64_t best = few > many ? few : many;
  return static_cast<unsigned>(best < 1 ? 1 : best);
}

// Where a part of a sequence of fewer than 2^31 keys begins, and the one before it ends. The first
// parts have a tile more where tiles do not go round.
LONGCLOCK_INLINE unsigned part_begin(unsigned length, unsigned part, unsigned parts) {
  const unsigned tiles = (length + kTileKeys - 1) / kTileKeys, rest = tiles % parts;
  const unsigned begin = (part * (tiles / parts) + (part < rest ? part : rest)) * kTileKeys;
  return begin < length ? begin : length;
}

}  // namespace longclock
