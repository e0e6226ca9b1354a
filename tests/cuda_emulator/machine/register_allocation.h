// SPDX-License-Identifier: Apache-2.0
// PTX has thousands of virtual registers, of which few are alive at once. They are packed into rows
// of the warp's register file by linear scan, so that the file of a block stays in the cache.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "program.h"

namespace longclock::emulator {

struct CodeBlock {
  uint32_t begin = 0, end = 0;       // pcs, in layout order
  std::vector<uint32_t> successors;  // indices of CodeBlocks
};

// Operands of `code`, which are changed, name virtual registers of one function: Operand::offset is
// an index into `bits` (1: predicate). They come to name rows from `first_unit` and predicates from
// `first_predicate` on. Returns how many units and predicates the function takes.
// A register that may be read before it is written has its row to itself from the entry on, so that
// it is seen as undefined.
std::pair<uint32_t, uint32_t> allocate_registers(std::span<Instruction> code,
                                                 std::span<const CodeBlock> blocks,
                                                 std::span<const uint8_t> bits, uint32_t first_unit,
                                                 uint32_t first_predicate);

}  // namespace longclock::emulator
