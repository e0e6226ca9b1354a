// SPDX-License-Identifier: Apache-2.0
// From PTX to a Program: the functions that a kernel reaches, where their variables lie, and their
// instructions in the order of control_flow.h.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "control_flow.h"
#include "decode.h"
#include "launch.h"
#include "program.h"
#include "register_allocation.h"

namespace longclock::emulator {

class KernelDecoder {
 public:
  KernelDecoder(const ptx::Module& module, const ptx::Function& kernel,
                const AddressOf& address_of);
  std::shared_ptr<Program> decode();

 private:
  friend class Decode;
  struct Place {                          // of a variable of a function
    ptx::Space space = ptx::Space::none;  // param: the kernel's; else shared or local
    uint64_t offset = 0;
  };
  struct Fixup {  // a branch whose pc is not known yet
    uint32_t pc = 0;
    uint32_t block = 0;
    int32_t entry = -1;  // of a branch table
  };

  void find_functions();
  void place_shared();
  void place_locals(size_t function);
  void decode_function(size_t function);
  void decode_instruction(const ptx::Instruction& ptx);
  void append_jump(const ptx::Instruction& after, uint32_t block);

  uint32_t constant_row(uint64_t value, unsigned bits);  // offset of its row
  const Operand* store_operands();
  // Address or offset of a symbol of the module.
  uint64_t symbol_value(std::string_view name);
  int32_t function_index(std::string_view name) const;  // of Program::functions; -1

  const ptx::Module& module_;
  const ptx::Function& kernel_;
  const AddressOf& address_of_;
  std::shared_ptr<Program> program_;
  std::vector<std::vector<Place>> places_;                 // function -> variable
  std::unordered_map<std::string_view, uint64_t> shared_;  // module's shared variables
  std::map<std::pair<uint64_t, unsigned>, uint32_t> constants_;
  size_t operands_left_ = 0, chunk_size_ = 0;  // of the last chunk of operands

  // Of the function that is being decoded:
  const ptx::Function* function_ = nullptr;
  size_t function_number_ = 0;
  std::vector<uint8_t> register_bits_;
  ControlFlow flow_;
  std::vector<Fixup> fixups_;
  std::vector<Operand> operands_;  // of the instruction that is being decoded
};

}  // namespace longclock::emulator
