// SPDX-License-Identifier: Apache-2.0
// Independent thread scheduling. A warp is a set of groups of lanes, each with its own program
// counter; the deepest call and then the lowest program counter runs, and groups that meet join.
// A group that loops for long while others could run is set aside for them: a lane may wait for
// what another lane of its warp does.
#pragma once

#include <cstdint>

#include "block.h"
#include "program.h"

namespace longclock::emulator {

enum class WarpState : uint8_t {
  done,     // every lane has exited
  blocked,  // at barriers
  looping,  // out of fuel: other warps and blocks should have their turn
};

// How often each instruction of the program ran, for how many lanes.
struct Executions {
  uint64_t warps = 0, lanes = 0;
};

// Runs until the warp cannot go on or its fuel is gone. `executions`: [code], or nullptr; where
// it is given `executed` grows by the instructions of this warp.
WarpState run_warp(Warp& warp, Executions* executions, uint64_t* executed);

// --- For control instructions

// The lanes go on at `pc`, the others of the running group where they are.
void split(Warp& warp, uint32_t lanes, uint32_t pc);
void exit_lanes(Warp& warp, uint32_t lanes);
// The lanes of the running group wait; the scheduler chooses anew.
void wait_group(Warp& warp, uint32_t lanes, ThreadGroup::State state, uint32_t pc, uint32_t detail);
// Reports a source that is undefined in some of the lanes, as `use`; whether there was one.
bool report_undefined(Warp& warp, const Instruction& in, const Operand& operand, uint32_t lanes,
                      const char* use);

// Handlers that the decoder places itself.
void jump(Warp& warp, const Instruction& in, uint32_t lanes);
void return_from_function(Warp& warp, const Instruction& in, uint32_t lanes);
void unknown_instruction(Warp& warp, const Instruction& in, uint32_t lanes);

// --- Barriers of a block (barriers.cpp)

// The lanes wait at barrier `id`. count: of threads, 0: all of the block. aligned: the whole warp
// must come.
void arrive_at_barrier(Warp& warp, const Instruction& in, uint32_t lanes, uint32_t id,
                       uint32_t count, bool aligned, bool wait);
// Lanes that came to aligned barriers one by one, while the rest of their warp can never come.
void settle_divergent_barriers(Warp& warp);
uint32_t barrier_count(const Warp& warp,
                       const Instruction& in);  // the count that it gives; 0: none
void recheck_barriers(Block& block);            // after lanes exited
// Every warp waits, for what will not come: reports that.
void report_deadlock(Block& block);

}  // namespace longclock::emulator
