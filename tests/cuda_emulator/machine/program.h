// SPDX-License-Identifier: Apache-2.0
// A kernel with the functions that it calls, decoded: instructions in an order in which a branch
// forwards never passes the point where its sides meet again (control_flow.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../ptx/module.h"
#include "instruction.h"
#include "launch.h"

namespace longclock::emulator {

// Bytes of the local memory of a lane.
struct Range {
  uint64_t offset = 0, bytes = 0;
};

// A function's share of the tables below.
struct FunctionCode {
  const ptx::Function* ptx = nullptr;
  uint32_t entry = 0;                  // pc
  uint32_t first_unit = 0, units = 0;  // its registers, saved where it recurs
  uint32_t first_predicate = 0, predicates = 0;
  uint64_t frame = 0, frame_bytes = 0;     // its .local and .param variables, in local memory
  std::vector<Range> parameters, results;  // in local memory; the kernel's are elsewhere
};

// Extern functions that the emulator knows.
enum class Builtin : uint8_t { none, vprintf, assertfail, malloc, free };

struct CallSite {
  int32_t function = -1;  // index of Program::functions; -1: a builtin, or its address in operand 0
  Builtin builtin = Builtin::none;
  std::vector<Range> arguments, results;  // of the caller, in local memory
};

struct Program {
  const ptx::Module* module = nullptr;
  const ptx::Function* kernel = nullptr;
  std::string name;  // demangled
  KernelFacts facts;
  std::vector<Instruction> code;
  std::vector<std::unique_ptr<Operand[]>> operands;
  std::vector<std::byte> constants;     // rows
  std::vector<FunctionCode> functions;  // [0]: the kernel
  uint64_t dynamic_shared_at = 0;       // where extern shared memory begins
  uint32_t units = 0;                   // of registers, 128 bytes each, a warp
  uint32_t predicates = 0;              // a warp
  std::vector<std::shared_ptr<void>> extras;

  const ptx::Instruction& source(uint32_t pc) const {
    return *static_cast<const ptx::Instruction*>(code[pc].source);
  }
};

}  // namespace longclock::emulator
