// SPDX-License-Identifier: Apache-2.0
#include "decode.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "decoder.h"

namespace longclock::emulator {
namespace {

using Kind = ptx::Operand::Kind;

constexpr std::pair<std::string_view, Builtin> kBuiltins[] = {
    {"vprintf", Builtin::vprintf},
    {"__assertfail", Builtin::assertfail},
    {"malloc", Builtin::malloc},
    {"free", Builtin::free},
};

}  // namespace

bool Decode::has(std::string_view modifier) const {
  return std::find(ptx.modifiers.begin(), ptx.modifiers.end(), modifier) != ptx.modifiers.end();
}

std::string_view Decode::type(size_t from_end) const {
  return from_end < ptx.modifiers.size() ? ptx.modifiers[ptx.modifiers.size() - 1 - from_end] : "";
}

void Decode::result(size_t i, unsigned bits) {
  if (out.results != out.count) throw std::runtime_error("a result after a source");
  append(operand(i), bits, true);
  out.results = out.count;
}

void Decode::source(size_t i, unsigned bits) { append(operand(i), bits, false); }

void Decode::append(const ptx::Operand& operand, unsigned bits, bool is_result) {
  const auto add = [&](uint32_t offset, Operand::Kind kind, unsigned width) {
    kernel_.operands_.push_back({offset, kind, operand.negated, static_cast<uint8_t>(width)});
    ++out.count;
  };
  const auto constant = [&](uint64_t value) {
    add(kernel_.constant_row(value, bits), Operand::constant, bits);
  };
  switch (operand.kind) {
    case Kind::vector:
    case Kind::pair:
      // The second of a pair is a predicate, whatever the width of the first.
      for (const ptx::Operand& element : operand.elements) append(element, bits, is_result);
      return;
    case Kind::reg: {
      const uint8_t width = kernel_.register_bits_[operand.index];
      add(operand.index, width == 1 ? Operand::predicate : Operand::reg, width);
      return;
    }
    case Kind::sink:
      if (!is_result) throw std::runtime_error("_ as a source");
      kernel_.register_bits_.push_back(static_cast<uint8_t>(bits));
      add(static_cast<uint32_t>(kernel_.register_bits_.size() - 1),
          bits == 1 ? Operand::predicate : Operand::reg, bits);
      return;
    case Kind::integer:
      if (!is_result) return constant(operand.bits);
      break;
    case Kind::real: {
      if (is_result) break;
      const double value = std::bit_cast<double>(operand.bits);
      if (bits == 64) return constant(operand.bits);
      if (bits == 32) return constant(std::bit_cast<uint32_t>(static_cast<float>(value)));
      break;
    }
    case Kind::local: {
      if (is_result) break;
      const auto& place = kernel_.places_[kernel_.function_number_][operand.index];
      return constant(place.offset + static_cast<uint64_t>(operand.offset));
    }
    case Kind::symbol:
      if (is_result) break;
      return constant(kernel_.symbol_value(operand.name) + static_cast<uint64_t>(operand.offset));
    default:
      break;
  }
  throw std::runtime_error("an operand of this kind cannot stand here");
}

void Decode::source_constant(uint64_t value, unsigned bits) {
  kernel_.operands_.push_back(
      {kernel_.constant_row(value, bits), Operand::constant, false, static_cast<uint8_t>(bits)});
  ++out.count;
}

void Decode::address(size_t i) {
  if (operand(i).kind != Kind::address) throw std::runtime_error("not an address");
  append(operand(i).elements[0], 64, false);
  out.immediate = operand(i).offset;
}

const Operand& Decode::laid_out(size_t k) const { return kernel_.operands_.at(k); }

ptx::Space Decode::parameter_space(size_t i) const {
  const ptx::Operand& base = operand(i).elements.at(0);
  if (base.kind == Kind::local) return kernel_.places_[kernel_.function_number_][base.index].space;
  return kernel_.function_->is_kernel ? ptx::Space::param : ptx::Space::local;
}

int64_t Decode::integer(size_t i) const {
  if (i >= operands() || operand(i).kind != Kind::integer)
    throw std::runtime_error("not an integer");
  return static_cast<int64_t>(operand(i).bits);
}

void Decode::branch_to(size_t i) {
  if (operand(i).kind != Kind::label) throw std::runtime_error("not a label");
  const uint32_t at = kernel_.function_->labels[operand(i).index].target;
  const uint32_t block = kernel_.flow_.block_of[at];
  if (block == 0xffffffffu) throw std::runtime_error("a label past the end");
  kernel_.fixups_.push_back({static_cast<uint32_t>(kernel_.program_->code.size()), block, -1});
}

void Decode::branch_table(size_t i) {
  if (operand(i).kind != Kind::table) throw std::runtime_error("not a branch table");
  const std::vector<uint32_t>& labels = kernel_.function_->branch_tables[operand(i).index];
  make_extra<std::vector<uint32_t>>()->resize(labels.size());
  for (size_t entry = 0; entry < labels.size(); ++entry) {
    const uint32_t at = kernel_.function_->labels[labels[entry]].target;
    kernel_.fixups_.push_back({static_cast<uint32_t>(kernel_.program_->code.size()),
                               kernel_.flow_.block_of[at], static_cast<int32_t>(entry)});
  }
}

void Decode::call() {
  CallSite* site = make_extra<CallSite>();
  size_t i = 0;
  const auto ranges = [&](std::vector<Range>& to) {
    if (i >= operands() || operand(i).kind != Kind::list) return;
    for (const ptx::Operand& element : operand(i).elements) {
      if (element.kind != Kind::local) throw std::runtime_error("an argument that is not .param");
      to.push_back({kernel_.places_[kernel_.function_number_][element.index].offset,
                    kernel_.function_->variables[element.index].bytes});
    }
    ++i;
  };
  ranges(site->results);
  const ptx::Operand& callee = operand(i++);
  ranges(site->arguments);
  if (callee.kind == Kind::reg) {
    append(callee, 64, false);
    return;
  }
  site->function = kernel_.function_index(callee.name);
  for (const auto& [name, builtin] : kBuiltins) {
    if (site->function < 0 && callee.name == name) site->builtin = builtin;
  }
  if (site->function < 0 && site->builtin == Builtin::none) {
    throw std::runtime_error("a call of an unknown function");
  }
}

int Decode::sm_target() const { return kernel_.module_.target; }

void Decode::keep(std::shared_ptr<void> data) {
  kernel_.program_->extras.push_back(std::move(data));
}

}  // namespace longclock::emulator
