// SPDX-License-Identifier: Apache-2.0
// The order in which a function's basic blocks are laid out.
//
// A warp always runs its group with the lowest program counter. Where every block comes before the
// blocks that it leads to, and loops are contiguous, threads that part meet again at the first
// point that both reach, as hardware's convergence barriers arrange: a group that left a loop, or
// finished its side of a branch, is further down and waits. (The priority order of Diamos et al.,
// "SIMD Re-convergence at Thread Frontiers", MICRO 2011.)
#pragma once

#include <cstdint>
#include <vector>

#include "../ptx/module.h"

namespace longclock::emulator {

struct BasicBlock {
  uint32_t begin = 0, end = 0;       // of Function::instructions
  std::vector<uint32_t> successors;  // blocks
  bool falls_through = false;        // to the block of the next instruction, the first successor
};

struct ControlFlow {
  std::vector<BasicBlock> blocks;  // in text order; [0] is the entry
  std::vector<uint32_t> order;     // of the blocks that can be reached
  std::vector<uint32_t> block_of;  // instruction -> block; one more for the end
};

ControlFlow analyse_control_flow(const ptx::Function& function);

// Whether control never goes on after the instruction: bra, ret, exit, brx, trap without a guard.
bool ends_block(const ptx::Instruction& instruction);
bool is_branch(const ptx::Instruction& instruction);  // bra or brx: may go elsewhere

}  // namespace longclock::emulator
