// SPDX-License-Identifier: Apache-2.0
// A decoded instruction: a handler that executes it for a whole warp, and its operands.
#pragma once

#include <cstdint>

namespace longclock::emulator {

struct Warp;
struct Instruction;

constexpr unsigned kWarpLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// Executes for the lanes of the mask, which is not 0. May compute, but must not change, the others.
using Handler = void (*)(Warp& warp, const Instruction& instruction, uint32_t lanes);

// A register is a row of 32 lanes: uint16_t, uint32_t or uint64_t [32] at `offset` bytes, one unit
// of 128 bytes or two. A predicate is one word, bit l of lane l. Immediates are rows of a shared
// pool.
struct Operand {
  enum Kind : uint8_t { reg, constant, predicate };
  uint32_t offset;  // bytes into the file (reg, constant); index (predicate)
  Kind kind;
  bool negated;  // of a predicate: read as !%p
  uint8_t bits;  // of the register itself, 16, 32, 64, 128 (two rows of 64); 1: predicate

  uint32_t unit() const { return offset / 128; }  // index into Warp::undefined
};

// What an instruction is counted as.
enum class Unit : uint8_t {
  integer,
  float32,
  float64,
  half,
  convert,
  move,
  compare,
  special,
  tensor,
  shuffle,
  sync,
  atomic,
  load_global,
  store_global,
  load_shared,
  store_shared,
  load_local,
  store_local,
  load_param,
  async,
  control,
  count_
};

struct Instruction {
  Handler run = nullptr;
  // Called before `run`, while every source is intact, when a source is undefined in some lane:
  // writes Warp::undefined and undefined_bits of the results. nullptr: these are wholly undefined.
  Handler define = nullptr;
  const Operand* operands = nullptr;  // results first
  uint8_t results = 0;
  uint8_t count = 0;  // of results and sources
  Unit unit = Unit::move;
  bool own_definedness = false;  // `run` keeps Warp::undefined itself (memory, shuffles, matrices)
  int8_t member_mask = -1;       // index of the operand with the member mask of a *.sync
  int32_t guard = -1;            // index of a predicate
  bool guard_negated = false;
  uint32_t target = 0;           // pc of a branch or call
  int64_t immediate = 0;         // address offset, truth table, ...
  const void* extra = nullptr;   // what else a handler wants, made by its select function
  const void* source = nullptr;  // const ptx::Instruction*
};

}  // namespace longclock::emulator
