// SPDX-License-Identifier: Apache-2.0
#include "decoder.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "scheduler.h"

namespace longclock::emulator {
namespace {

using Kind = ptx::Operand::Kind;
constexpr size_t kOperandChunk = 4096;

uint64_t align_up(uint64_t value, uint64_t align) { return (value + align - 1) / align * align; }

std::string demangle(std::string_view name) {
  const std::string mangled(name);
  int status = 0;
  char* text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  const std::string result = status == 0 ? text : mangled;
  std::free(text);
  return result;
}

template <class F>
void for_each_symbol(const ptx::Operand& operand, F f) {
  if (operand.kind == Kind::symbol) f(operand.name);
  for (const ptx::Operand& element : operand.elements) for_each_symbol(element, f);
}

bool is_indirect_call(const ptx::Instruction& in) {
  return in.opcode == "call" &&
         std::any_of(in.operands.begin(), in.operands.end(),
                     [](const ptx::Operand& o) { return o.kind == Kind::reg; });
}

using Table = std::unordered_map<std::string_view, std::vector<Select>>;

const Table& opcode_table() {
  static const Table& table = []() -> const Table& {
    Table& made = *new Table;
    for (const auto& opcodes :
         {integer_opcodes(), float_opcodes(), half_opcodes(), bit_opcodes(), compare_opcodes(),
          convert_opcodes(), memory_opcodes(), atomic_opcodes(), async_opcodes(), warp_opcodes(),
          matrix_opcodes(), wmma_opcodes(), control_opcodes()}) {
      for (const Opcode& opcode : opcodes) made[opcode.name].push_back(opcode.select);
    }
    return made;
  }();
  return table;
}

}  // namespace

KernelDecoder::KernelDecoder(const ptx::Module& module, const ptx::Function& kernel,
                             const AddressOf& address_of)
    : module_(module),
      kernel_(kernel),
      address_of_(address_of),
      program_(std::make_shared<Program>()) {
  program_->module = &module;
  program_->kernel = &kernel;
  program_->name = demangle(kernel.name);
}

std::shared_ptr<Program> KernelDecoder::decode() {
  find_functions();
  place_shared();
  places_.resize(program_->functions.size());
  for (size_t f = 0; f < program_->functions.size(); ++f) place_locals(f);
  for (size_t f = 0; f < program_->functions.size(); ++f) decode_function(f);
  return program_;
}

// Calls and addresses of functions, transitively. Where a call goes through a pointer, also those
// whose address a variable of the module holds: tables of virtual functions.
void KernelDecoder::find_functions() {
  std::vector<FunctionCode>& found = program_->functions;
  const auto add = [&](std::string_view name) {
    const ptx::Function* function = module_.find_function(name);
    if (function == nullptr || !function->has_body || function_index(name) >= 0) return;
    found.emplace_back().ptx = function;
  };
  found.emplace_back().ptx = &kernel_;
  bool indirect = false;
  for (size_t f = 0; f < found.size(); ++f) {
    for (const ptx::Instruction& in : found[f].ptx->instructions) {
      for (const ptx::Operand& operand : in.operands) for_each_symbol(operand, add);
      indirect |= is_indirect_call(in);
    }
    if (indirect && f + 1 == found.size()) {
      for (const ptx::Variable& variable : module_.variables) {
        for (const ptx::Relocation& relocation : variable.relocations) add(relocation.symbol);
      }
    }
  }
}

int32_t KernelDecoder::function_index(std::string_view name) const {
  for (size_t f = 0; f < program_->functions.size(); ++f) {
    if (program_->functions[f].ptx->name == name) return static_cast<int32_t>(f);
  }
  return -1;
}

// Static shared memory first, those of the module only where they are named; then the extern one.
void KernelDecoder::place_shared() {
  uint64_t at = 0, extern_align = 16;
  places_.resize(program_->functions.size());
  std::vector<std::pair<size_t, size_t>> extern_locals;
  std::vector<std::string_view> extern_symbols;
  for (size_t f = 0; f < program_->functions.size(); ++f) {
    const ptx::Function& function = *program_->functions[f].ptx;
    places_[f].resize(function.variables.size());
    for (size_t v = 0; v < function.variables.size(); ++v) {
      const ptx::Variable& variable = function.variables[v];
      if (variable.space != ptx::Space::shared) continue;
      if (variable.is_extern || variable.bytes == 0) {
        extern_align = std::max<uint64_t>(extern_align, variable.align);
        extern_locals.emplace_back(f, v);
        continue;
      }
      at = align_up(at, variable.align);
      places_[f][v] = {ptx::Space::shared, at};
      at += variable.bytes;
    }
    for (const ptx::Instruction& in : function.instructions) {
      for (const ptx::Operand& operand : in.operands) {
        for_each_symbol(operand, [&](std::string_view name) {
          const ptx::Variable* variable = module_.find_variable(name);
          if (variable == nullptr || variable->space != ptx::Space::shared ||
              shared_.contains(name))
            return;
          shared_[name] = 0;
          if (variable->is_extern || variable->bytes == 0) {
            extern_align = std::max<uint64_t>(extern_align, variable->align);
            extern_symbols.push_back(name);
            return;
          }
          at = align_up(at, variable->align);
          shared_[name] = at;
          at += variable->bytes;
        });
      }
    }
  }
  program_->facts.static_shared = at;
  program_->dynamic_shared_at = align_up(at, extern_align);
  for (const auto& [f, v] : extern_locals)
    places_[f][v] = {ptx::Space::shared, program_->dynamic_shared_at};
  for (std::string_view name : extern_symbols) shared_[name] = program_->dynamic_shared_at;
}

void KernelDecoder::place_locals(size_t number) {
  FunctionCode& code = program_->functions[number];
  const ptx::Function& function = *code.ptx;
  KernelFacts& facts = program_->facts;
  uint64_t at = align_up(facts.local_bytes, 16);
  code.frame = at;
  for (size_t v = 0; v < function.variables.size(); ++v) {
    const ptx::Variable& variable = function.variables[v];
    if (variable.space == ptx::Space::shared) continue;
    if (function.is_kernel && variable.is_parameter) {
      facts.parameter_bytes = align_up(facts.parameter_bytes, variable.align);
      places_[number][v] = {ptx::Space::param, facts.parameter_bytes};
      facts.parameter_bytes += variable.bytes;
      ++facts.parameter_count;
      continue;
    }
    at = align_up(at, std::max(variable.align, 4u));
    places_[number][v] = {ptx::Space::local, at};
    at += variable.bytes;
  }
  code.frame_bytes = at - code.frame;
  facts.local_bytes = at;
  if (function.is_kernel) return;
  for (uint32_t v : function.parameters)
    code.parameters.push_back({places_[number][v].offset, function.variables[v].bytes});
  for (uint32_t v : function.results)
    code.results.push_back({places_[number][v].offset, function.variables[v].bytes});
}

void KernelDecoder::decode_function(size_t number) {
  FunctionCode& code = program_->functions[number];
  function_number_ = number;
  function_ = code.ptx;
  flow_ = analyse_control_flow(*function_);
  register_bits_.clear();
  for (const ptx::Register& r : function_->registers) {
    register_bits_.push_back(r.type.bits == 8 ? 16 : r.type.bits);
  }
  fixups_.clear();
  code.entry = static_cast<uint32_t>(program_->code.size());

  std::vector<CodeBlock> blocks;
  std::vector<uint32_t> place(flow_.blocks.size(), 0);  // block -> index in blocks
  for (size_t i = 0; i < flow_.order.size(); ++i) {
    const uint32_t b = flow_.order[i];
    const BasicBlock& block = flow_.blocks[b];
    place[b] = static_cast<uint32_t>(i);
    CodeBlock& made = blocks.emplace_back();
    made.begin = static_cast<uint32_t>(program_->code.size());
    for (uint32_t p = block.begin; p < block.end; ++p)
      decode_instruction(function_->instructions[p]);
    const bool last = i + 1 == flow_.order.size();
    if (block.falls_through && (last || flow_.order[i + 1] != block.successors[0])) {
      append_jump(function_->instructions[block.end - 1], block.successors[0]);
    } else if (block.end == function_->instructions.size() &&
               !ends_block(function_->instructions[block.end - 1])) {
      append_jump(function_->instructions[block.end - 1], 0xffffffffu);  // off the end: return
    }
    made.end = static_cast<uint32_t>(program_->code.size());
    made.successors = block.successors;
  }
  for (CodeBlock& block : blocks) {
    for (uint32_t& s : block.successors) s = place[s];
  }
  for (const Fixup& fixup : fixups_) {
    const uint32_t target = blocks[place[fixup.block]].begin;
    if (fixup.entry < 0) {
      program_->code[fixup.pc].target = target;
    } else {
      auto* table = const_cast<void*>(program_->code[fixup.pc].extra);
      (*static_cast<std::vector<uint32_t>*>(table))[static_cast<size_t>(fixup.entry)] = target;
    }
  }

  code.first_unit = program_->units;
  code.first_predicate = program_->predicates;
  for (CodeBlock& block : blocks) {
    block.begin -= code.entry;
    block.end -= code.entry;
  }
  const auto [units, predicates] =
      allocate_registers(std::span(program_->code).subspan(code.entry), blocks, register_bits_,
                         code.first_unit, code.first_predicate);
  code.units = units;
  code.predicates = predicates;
  program_->units += units;
  program_->predicates += predicates;
}

void KernelDecoder::decode_instruction(const ptx::Instruction& ptx) {
  Instruction out;
  const auto found = opcode_table().find(ptx.opcode);
  if (found != opcode_table().end()) {
    for (Select select : found->second) {
      const size_t fixups = fixups_.size();
      operands_.clear();
      out = Instruction{};
      out.source = &ptx;
      Decode decode(*this, ptx, out);
      try {
        out.run = select(decode);
      } catch (const std::runtime_error&) {
        out.run = nullptr;  // an operand of a kind that the instruction cannot have
      }
      if (out.run != nullptr) break;
      fixups_.resize(fixups);
    }
  }
  if (out.run == nullptr) {
    operands_.clear();
    out = Instruction{};
    out.run = unknown_instruction;
    out.unit = Unit::control;
    out.own_definedness = true;
  }
  out.source = &ptx;
  out.guard = ptx.guard;
  out.guard_negated = ptx.guard_negated;
  out.operands = store_operands();
  program_->code.push_back(out);
}

// The blocks' order parts a block from the one that it falls through to.
void KernelDecoder::append_jump(const ptx::Instruction& after, uint32_t block) {
  Instruction out;
  out.source = &after;
  out.unit = Unit::count_;  // not of the kernel: not counted
  out.run = block == 0xffffffffu ? return_from_function : jump;
  out.own_definedness = true;
  operands_.clear();
  out.operands = store_operands();
  if (block != 0xffffffffu)
    fixups_.push_back({static_cast<uint32_t>(program_->code.size()), block, -1});
  program_->code.push_back(out);
}

const Operand* KernelDecoder::store_operands() {
  auto& chunks = program_->operands;
  if (operands_left_ < operands_.size() || chunks.empty()) {
    operands_left_ = std::max(kOperandChunk, operands_.size());
    chunks.push_back(std::make_unique<Operand[]>(operands_left_));
    chunk_size_ = operands_left_;
  }
  Operand* to = chunks.back().get() + (chunk_size_ - operands_left_);
  std::copy(operands_.begin(), operands_.end(), to);
  operands_left_ -= operands_.size();
  return to;
}

uint32_t KernelDecoder::constant_row(uint64_t value, unsigned bits) {
  if (bits < 64) value &= (uint64_t{1} << bits) - 1;
  const auto [found, is_new] = constants_.try_emplace({value, bits}, 0);
  if (!is_new) return found->second;
  std::vector<std::byte>& rows = program_->constants;
  found->second = static_cast<uint32_t>(rows.size());
  rows.resize(rows.size() + (bits == 64 ? 256 : 128));
  const size_t bytes = bits == 1 ? 4 : bits / 8;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    std::memcpy(rows.data() + found->second + l * bytes, &value, bytes);
  }
  return found->second;
}

uint64_t KernelDecoder::symbol_value(std::string_view name) {
  if (const auto shared = shared_.find(name); shared != shared_.end()) return shared->second;
  if (const ptx::Function* function = module_.find_function(name)) {
    return function_address(static_cast<uint64_t>(function - module_.functions.data()));
  }
  return address_of_(name);
}

std::shared_ptr<const Program> decode_kernel(const ptx::Module& module, const ptx::Function& kernel,
                                             const AddressOf& address_of) {
  return KernelDecoder(module, kernel, address_of).decode();
}

const KernelFacts& kernel_facts(const Program& program) { return program.facts; }

}  // namespace longclock::emulator
