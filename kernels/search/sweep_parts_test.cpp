// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/sweep_parts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace longclock {
namespace {

// Tiles of keys that the busiest multiprocessor sweeps, where blocks go round.
int64_t longest_path(int64_t candidate_tiles, unsigned length, int multiprocessors) {
  const unsigned parts = sweep_parts(candidate_tiles, length, multiprocessors);
  std::vector<int64_t> tiles(multiprocessors);
  for (unsigned part = 0; part < parts; ++part) {
    const unsigned begin = part_begin(length, part, parts),
                   end = part_begin(length, part + 1, parts);
    for (int64_t tile = 0; tile < candidate_tiles; ++tile) {
      tiles[(part * candidate_tiles + tile) % multiprocessors] +=
          (end - begin + kTileKeys - 1) / kTileKeys;
    }
  }
  return *std::max_element(tiles.begin(), tiles.end());
}

// The multiprocessors of cards: a tile cannot be halved, which is all that keeps the busiest from
// the mean.
TEST(SweepParts, NoMultiprocessorHasMuchMoreThanItsShare) {
  for (const int multiprocessors : {58, 82, 108, 132, 142, 148, 188}) {
    for (const int64_t candidate_tiles : {4, 8}) {
      const int64_t tiles = candidate_tiles * ((10'000 + kTileKeys - 1) / kTileKeys);
      const int64_t share = (tiles + multiprocessors - 1) / multiprocessors;
      EXPECT_LE(static_cast<double>(longest_path(candidate_tiles, 10'000u, multiprocessors)),
                1.15 * static_cast<double>(share))
          << candidate_tiles << " tiles of candidates on " << multiprocessors;
    }
  }
}

TEST(SweepParts, AreTheSequenceInWholeTiles) {
  for (const unsigned length : {0u, 1u, 63u, 64u, 65u, 1000u, 10'000u, 0x7fffffffu}) {
    for (const unsigned parts : {1u, 2u, 7u, 33u, 400u}) {
      EXPECT_EQ(part_begin(length, 0, parts), 0u);
      EXPECT_EQ(part_begin(length, parts, parts), length);
      for (unsigned part = 1; part < parts; ++part) {
        const unsigned begin = part_begin(length, part, parts);
        EXPECT_GE(begin, part_begin(length, part - 1, parts));
        EXPECT_TRUE(begin == length || begin % kTileKeys == 0);
      }
    }
  }
}

}  // namespace
}  // namespace longclock
