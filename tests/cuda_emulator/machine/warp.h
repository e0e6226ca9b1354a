// SPDX-License-Identifier: Apache-2.0
// The state of 32 threads. Registers are rows of lanes, so that a handler is a loop over 32 values
// that the compiler turns into vector code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "instruction.h"

namespace longclock::emulator {

struct Block;
struct Program;

// Threads of a warp that are at one place. Independent thread scheduling: groups split at divergent
// branches and join where their program counters meet (scheduler.cpp).
struct ThreadGroup {
  enum State : uint8_t { ready, at_barrier, at_warp_sync };
  uint32_t lanes = 0;
  uint32_t pc = 0;
  uint32_t depth = 0;  // of calls
  State state = ready;
  uint32_t sync_mask = 0;  // at_warp_sync: who must come
  uint32_t barrier = 0;    // at_barrier: which
};

// One call of one lane.
struct CallFrame {
  uint32_t return_pc = 0;
  uint32_t function = 0;  // that was called
  const struct CallSite* site = nullptr;
  std::vector<std::byte> saved;  // registers and frame of an earlier call that this one recurs into
};

struct Warp {
  // The group that runs: what handlers see and control instructions change.
  uint32_t pc = 0;  // of the next instruction; in a handler, of the one after it
  // Reaching it gives the choice of the next group to the scheduler; 0 does so at once.
  uint32_t limit = 0;
  uint32_t active = 0;  // lanes
  uint32_t depth = 0;

  std::byte* registers = nullptr;
  const std::byte* constants = nullptr;
  uint32_t* predicates = nullptr;

  // Definedness, where it is checked: the lanes of each unit of registers that hold undefined bits,
  // and for those lanes which bits, in the layout of `registers`. Of predicates, the lanes.
  uint32_t* undefined = nullptr;
  std::byte* undefined_bits = nullptr;
  uint32_t* undefined_predicates = nullptr;

  Block* block = nullptr;
  uint32_t index = 0;   // in the block
  uint32_t exists = 0;  // lanes that the launch has
  uint32_t exited = 0;
  uint32_t carry = 0;  // the flag of add.cc and its like, by lane
  std::vector<ThreadGroup> waiting;
  std::vector<std::vector<CallFrame>> calls;  // [32], made at the first call
  int32_t fuel = 0;                           // backward branches until the scheduler looks around
  uint32_t starved = 0;                       // how often in a row it found the same group looping
  bool force_sync = false;                    // the next *.sync runs without its missing lanes
  std::byte* local = nullptr;                 // local memory of lane 0; local_stride bytes a lane
  std::byte* local_undefined = nullptr;       // where definedness is checked
  uint64_t local_stride = 0;

  uint32_t live() const { return exists & ~exited; }

  template <class T>
  T* result(const Operand& operand) {
    return reinterpret_cast<T*>(registers + operand.offset);
  }
  template <class T>
  const T* source(const Operand& operand) const {
    const std::byte* base = operand.kind == Operand::constant ? constants : registers;
    return reinterpret_cast<const T*>(base + operand.offset);
  }
  uint32_t predicate(const Operand& operand) const {
    if (operand.kind == Operand::constant) return *source<uint32_t>(operand) != 0 ? kAllLanes : 0;
    return operand.negated ? ~predicates[operand.offset] : predicates[operand.offset];
  }
  void set_predicate(const Operand& operand, uint32_t value, uint32_t lanes) {
    uint32_t& word = predicates[operand.offset];
    word = (word & ~lanes) | (value & lanes);
  }

  // Definedness of one operand; constants are defined.
  uint32_t undefined_lanes(const Operand& operand) const {
    if (operand.kind == Operand::constant) return 0;
    return operand.kind == Operand::predicate ? undefined_predicates[operand.offset]
                                              : undefined[operand.unit()];
  }
  // The undefined bits of an operand, all 32 lanes; those of lanes that are defined are
  // meaningless.
  template <class T>
  T* bits_of(const Operand& operand) {
    return reinterpret_cast<T*>(undefined_bits + operand.offset);
  }
  void mark(const Operand& operand, uint32_t undefined_lanes, uint32_t lanes) {
    uint32_t& word = operand.kind == Operand::predicate ? undefined_predicates[operand.offset]
                                                        : undefined[operand.unit()];
    word = (word & ~lanes) | (undefined_lanes & lanes);
  }
};

}  // namespace longclock::emulator
