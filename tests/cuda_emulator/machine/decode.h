// SPDX-License-Identifier: Apache-2.0
// How an opcode becomes a handler. Each ops_*.cpp owns a table of opcodes; its select functions
// read the modifiers and lay the operands out, results first.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "../ptx/module.h"
#include "instruction.h"

namespace longclock::emulator {

class KernelDecoder;  // decoder.cpp

// How many registers a textual operand names: {a, b} or one.
inline unsigned registers_of(const ptx::Operand& operand) {
  const bool vector = operand.kind == ptx::Operand::Kind::vector;
  return vector ? static_cast<unsigned>(operand.elements.size()) : 1;
}

class Decode {
 public:
  Decode(KernelDecoder& kernel, const ptx::Instruction& ptx, Instruction& out)
      : ptx(ptx), out(out), kernel_(kernel) {}

  const ptx::Instruction& ptx;
  Instruction& out;

  bool has(std::string_view modifier) const;
  size_t modifiers() const { return ptx.modifiers.size(); }
  std::string_view modifier(size_t i) const {
    return i < ptx.modifiers.size() ? ptx.modifiers[i] : "";
  }
  // The last modifier: the type of most instructions. type(1) is the one before it (cvt.to.from).
  std::string_view type(size_t from_end = 0) const;
  size_t operands() const { return ptx.operands.size(); }
  const ptx::Operand& operand(size_t i) const { return ptx.operands[i]; }

  // Appends textual operand i; vectors and pairs are flattened. All results come before all
  // sources. `bits`: of an immediate's row (16, 32, 64; reals are rounded to it; 1: predicate).
  // Registers keep their own width, in Operand::bits, which ld, st and cvt may find wider than the
  // type.
  void result(size_t i, unsigned bits = 32);  // _ becomes a register that nobody reads
  void source(size_t i, unsigned bits = 32);
  void source_constant(uint64_t value, unsigned bits);
  // Appends the base of [base + offset] as a 64-bit source (32-bit registers of .shared stay 32)
  // and sets out.immediate to the offset. Symbols become constants: host addresses for global and
  // constant, offsets for shared, local and param.
  void address(size_t i);
  // Operand k of those appended so far (results and sources), as its register or row is.
  const Operand& laid_out(size_t k) const;
  // The constant value of an integer operand. Throws if it is not one.
  int64_t integer(size_t i) const;
  // Of the .param variable that operand i addresses: param for the kernel's own parameters, in
  // Grid::parameters; local for those of calls, which live in the frame of each lane.
  ptx::Space parameter_space(size_t i) const;
  // Storage that lives as long as the program, for out.extra.
  template <class T>
  T* make_extra() {
    auto data = std::make_shared<T>();
    keep(data);
    out.extra = data.get();
    return data.get();
  }
  // Sets out.target to the label of operand i, once the layout is known; the same for a table,
  // whose pcs become out.extra, a std::vector<uint32_t>.
  void branch_to(size_t i);
  void branch_table(size_t i);
  void call();            // lays out a call; out.extra becomes a CallSite (program.h)
  int sm_target() const;  // of the PTX

 private:
  void keep(std::shared_ptr<void> data);
  void append(const ptx::Operand& operand, unsigned bits, bool is_result);
  KernelDecoder& kernel_;
};

// Lays out the operands of d, sets out.unit, out.define and the like, and returns the handler;
// nullptr: a form that is not known, which is reported, with its text, when it is reached.
using Select = Handler (*)(Decode& d);

struct Opcode {
  std::string_view name;
  Select select;
};

std::span<const Opcode>
integer_opcodes();  // ops_integer.cpp: add, mul, mad, div, min, sad, ... of integers
std::span<const Opcode>
float_opcodes();                         // ops_float.cpp: f32, f64 arithmetic and special functions
std::span<const Opcode> half_opcodes();  // ops_half.cpp: f16, f16x2, bf16, bf16x2
std::span<const Opcode>
bit_opcodes();  // ops_bits.cpp: and, shf, lop3, prmt, bfe, popc, mov, selp, ...
std::span<const Opcode> compare_opcodes();  // ops_compare.cpp: setp, set, slct, testp
std::span<const Opcode> convert_opcodes();  // ops_convert.cpp: cvt, cvta, isspacep
std::span<const Opcode> memory_opcodes();   // ops_memory.cpp: ld, st, prefetch
std::span<const Opcode> atomic_opcodes();   // ops_atomic.cpp: atom, red, membar, fence
std::span<const Opcode> async_opcodes();    // ops_async.cpp: cp.async, mbarrier
std::span<const Opcode> warp_opcodes();     // ops_warp.cpp: shfl, vote, match, redux, activemask
std::span<const Opcode> matrix_opcodes();   // ops_matrix.cpp: mma, ldmatrix, stmatrix, movmatrix
std::span<const Opcode> wmma_opcodes();     // ops_wmma.cpp
std::span<const Opcode> control_opcodes();  // ops_control.cpp: bra, call, ret, exit, bar, trap
// An opcode such as add stands in several tables: each select returns nullptr, with nothing laid
// out, for types that are not its own.

}  // namespace longclock::emulator
