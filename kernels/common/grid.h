// SPDX-License-Identifier: Apache-2.0
// How many blocks a launch may have, and work that needs more of them.
#pragma once

#include <cstdint>

namespace longclock {

// Of gridDim.x, on every device. No kernel has a grid of more dimensions, whose limit is 65,535.
constexpr int64_t kMaxBlocks = 0x7fffffff;

// kMaxBlocks; on the emulator less where a test wants to see parts of little work.
int64_t most_blocks();

// The grid of a launch. What does not fit is 0 blocks, which CUDA refuses: cut to 32 bits it would
// run, and leave outputs that nobody wrote.
constexpr unsigned grid_of(int64_t blocks, int64_t most) {
  return blocks < 0 || blocks > most ? 0 : static_cast<unsigned>(blocks);
}

// Calls f(first item, items) for parts of `items`, at most `part` of them and no more than
// fit a launch of `most` blocks at `item_blocks` each. f returns a cudaError_t; so does this: the
// first that is not 0.
template <class F>
int for_each_part(int64_t items, int64_t part, int64_t item_blocks, int64_t most, const F& f) {
  const int64_t fits = item_blocks < 1 ? part : most / item_blocks;
  const int64_t step = fits < 1 ? 1 : fits < part ? fits : part;
  for (int64_t begin = 0; begin < items; begin += step) {
    if (const int error = f(begin, items - begin < step ? items - begin : step)) return error;
  }
  return 0;
}

}  // namespace longclock
