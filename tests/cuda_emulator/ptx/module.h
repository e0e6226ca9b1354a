// SPDX-License-Identifier: Apache-2.0
// A parsed PTX module. Names are resolved where scopes matter: registers, labels and variables that
// are declared inside a function are indices; what belongs to the module is looked up by name,
// since the address of a shared variable or a function depends on the kernel that is launched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace longclock::emulator::ptx {

enum class Space : uint8_t { none, reg, param, local, shared, global, constant };

// Of a declaration. Instructions keep their types as modifiers: their meaning depends on the
// opcode.
struct Type {
  uint8_t bits = 0;  // 1 for .pred; 8, 16, 32, 64, 128
  bool is_float = false;
  bool is_signed = false;
};

// A place in the source, from .loc. Inlined code points to the place that it was inlined at.
struct Location {
  uint32_t file = 0;  // key of Module::files
  uint32_t line = 0;
  int32_t inlined_at = -1;  // index into Module::locations
};

struct Operand {
  enum class Kind : uint8_t {
    reg,        // index: Function::registers; `negated`: !%p
    integer,    // bits
    real,       // bits: those of a double, exact also for 0f literals
    special,    // name: "%tid.x", "%laneid", "%envreg1", "WARP_SZ"
    local,      // index: Function::variables (its parameters are there too)
    symbol,     // name: of a variable or function of the module
    label,      // index: Function::labels
    table,      // index: Function::branch_tables
    prototype,  // name: a .callprototype; its only use is the shape of an indirect call
    vector,     // elements: {a, b}
    pair,       // elements: d|p
    list,       // elements: (a, b) of a call
    address,    // elements[0]: reg, local, symbol or integer; plus `offset`
    sink,       // _
  };
  Kind kind = Kind::sink;
  bool negated = false;
  uint32_t index = 0;
  uint64_t bits = 0;
  int64_t offset = 0;  // of an address, or of symbol+offset as an operand
  std::string_view name;
  std::vector<Operand> elements;
};

struct Instruction {
  int32_t guard = -1;  // @%p: index into Function::registers
  bool guard_negated = false;
  std::string_view opcode;                  // "ld"
  std::vector<std::string_view> modifiers;  // "global", "nc", "v4", "u32"; also "L2::128B"
  std::vector<Operand> operands;
  int32_t location = -1;  // index into Module::locations
  uint32_t line = 0;      // of the PTX text
  std::string_view text;  // as written, for messages
};

struct Register {
  std::string_view name;
  Type type;
};

// The value of an initialiser that is an address: a variable or function, generic() or not.
struct Relocation {
  uint64_t at = 0;  // byte of the initialiser
  uint32_t bytes = 8;
  std::string_view symbol;
  int64_t offset = 0;
  bool generic = false;
};

struct Variable {
  std::string_view name;
  Space space = Space::none;
  Type type;
  uint32_t align = 1;  // bytes
  uint64_t bytes = 0;  // 0: extern shared memory, sized by the launch
  bool is_extern = false;
  bool is_parameter = false;       // of the function, in Function::parameters or Function::results
  std::vector<std::byte> initial;  // empty: zeros
  std::vector<Relocation> relocations;
};

struct Label {
  std::string_view name;
  uint32_t target = 0;  // index into Function::instructions; may be one past the last
};

struct Function {
  std::string_view name;
  bool is_kernel = false;
  bool has_body = false;
  std::vector<Register> registers;   // of every scope
  std::vector<Variable> variables;   // of every scope: parameters, .local, .shared, .param of calls
  std::vector<uint32_t> parameters;  // indices into variables, in order
  std::vector<uint32_t> results;     // .func (result) name (...)
  std::vector<Label> labels;
  std::vector<std::vector<uint32_t>> branch_tables;  // .branchtargets: labels
  std::vector<Instruction> instructions;
  uint32_t max_threads[3] = {0, 0, 0};       // .maxntid; 0: not given
  uint32_t required_threads[3] = {0, 0, 0};  // .reqntid
  uint32_t min_blocks_per_sm = 0;            // .minnctapersm
  uint32_t max_registers = 0;                // .maxnreg
};

struct Module {
  std::string text;               // what the string_views point into, and
  std::deque<std::string> names;  // those that are not in it, such as %r7 of .reg .b32 %r<9>
  int version = 0;                // 90 for .version 9.0
  int target = 0;                 // 80 for sm_80, 90 also for sm_90a
  std::map<uint32_t, std::string> files;
  std::vector<Location> locations;
  std::vector<Variable> variables;
  std::vector<Function> functions;

  const Function* find_function(std::string_view name) const;
  const Variable* find_variable(std::string_view name) const;
};

// Throws std::runtime_error naming the PTX line that it does not understand. Debug sections are
// skipped.
std::unique_ptr<Module> parse(std::string text);

}  // namespace longclock::emulator::ptx
