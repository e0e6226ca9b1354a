// SPDX-License-Identifier: Apache-2.0
// Recursive descent over the tokens. Names are resolved after a function's body is read: labels may
// be used before they stand, and each scope of inline assembly has names of its own.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <unordered_map>

#include "lexer.h"
#include "literals.h"
#include "module.h"

namespace longclock::emulator::ptx {
namespace {

using Kind = Operand::Kind;

struct Name {  // what a name of a scope stands for
  Kind kind = Kind::reg;
  uint32_t index = 0;
};

struct Scope {
  int32_t outer = -1;
  std::unordered_map<std::string_view, Name> names;
};

class Parser {
 public:
  explicit Parser(Module& module) : module_(module), tokens_(tokenize(module.text)) {}

  void run() {
    while (peek().kind != Token::end) parse_top_level();
  }

 private:
  // --- Tokens

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is(std::string_view text) const {
    return peek().text == text && peek().kind != Token::string;
  }
  bool accept(std::string_view text) {
    if (!is(text)) return false;
    next();
    return true;
  }
  [[noreturn]] void fail(const std::string& expected) const {
    const Token& token = peek();
    const std::string_view all = module_.text;
    const size_t at = static_cast<size_t>(token.text.data() - all.data());
    const size_t begin = all.rfind('\n', at == 0 ? 0 : at - 1) + 1;
    throw std::runtime_error("PTX line " + std::to_string(token.line) + ": expected " + expected +
                             ", got '" + std::string(token.text) +
                             "': " + std::string(all.substr(begin, all.find('\n', at) - begin)));
  }
  void expect(std::string_view text) {
    if (!accept(text)) fail("'" + std::string(text) + "'");
  }
  std::string_view word() {
    if (peek().kind != Token::word) fail("a name");
    return next().text;
  }
  uint64_t integer() {
    const bool negative = accept("-");
    if (peek().kind != Token::number) fail("an integer");
    const uint64_t value = literal(next().text).bits;
    return negative ? 0 - value : value;
  }
  void skip_statement() {
    while (peek().kind != Token::end && !accept(";")) next();
  }
  void skip_braces() {
    expect("{");
    for (int depth = 1; depth > 0;) {
      if (peek().kind == Token::end) fail("'}'");
      if (is("{")) ++depth;
      if (is("}")) --depth;
      next();
    }
  }

  // --- Module

  void parse_top_level() {
    const std::string_view directive = peek().text;
    if (directive == ".version") {
      next();
      const std::string version(next().text);  // 9.0
      module_.version =
          std::atoi(version.c_str()) * 10 + std::atoi(version.c_str() + version.find('.') + 1);
    } else if (directive == ".target") {
      next();
      const std::string_view target = word();
      if (target.substr(0, 3) == "sm_") module_.target = std::atoi(target.data() + 3);
      while (accept(",")) next();
    } else if (directive == ".address_size") {
      next();
      next();
    } else if (directive == ".file") {
      parse_file();
    } else if (directive == ".section") {
      next();
      next();
      if (is("{")) skip_braces();
    } else if (directive == ".alias" || directive == ".pragma") {
      skip_statement();
    } else {
      parse_declaration();
    }
  }

  void parse_file() {
    next();
    const auto index = static_cast<uint32_t>(integer());
    if (peek().kind != Token::string) fail("a file name");
    module_.files[index] = std::string(next().text);
    while (accept(",")) next();
  }

  void parse_declaration() {
    bool is_extern = false;
    while (is(".visible") || is(".extern") || is(".weak") || is(".common"))
      is_extern |= next().text == ".extern";
    if (is(".entry") || is(".func")) {
      parse_function();
    } else if (space_of(peek().text) != Space::none) {
      Variable variable = parse_variable();
      variable.is_extern = is_extern;
      module_.variables.push_back(std::move(variable));
      expect(";");
    } else {
      fail("a function or a variable");
    }
  }

  // .space [.align N] [.attribute(...)] .type [.ptr ...] name [dims] [= value]
  Variable parse_variable() {
    Variable v;
    v.space = space_of(word());
    for (;;) {
      if (accept(".align")) {
        v.align = static_cast<uint32_t>(integer());
      } else if (accept(".attribute")) {
        while (!accept(")")) next();
      } else if (accept(".ptr")) {
        uint32_t ignored = v.align;  // of what it points to
        while (peek().text.starts_with(".")) {
          if (next().text == ".align") integer();
        }
        v.align = ignored;
      } else if (peek().text.starts_with(".v") && type_of(peek().text).bits == 0) {
        vector_ = static_cast<uint32_t>(std::atoi(std::string(next().text.substr(2)).c_str()));
      } else if (type_of(peek().text).bits != 0) {
        v.type = type_of(next().text);
      } else {
        break;
      }
    }
    v.name = word();
    const uint32_t element = v.type.bits / 8u;
    v.bytes = uint64_t{element} * vector_;
    v.align = std::max(v.align, element * vector_);
    vector_ = 1;
    bool unsized = false;
    while (accept("[")) {
      if (accept("]")) {
        unsized = true;
        continue;
      }
      v.bytes *= integer();
      expect("]");
    }
    if (unsized) v.bytes = 0;
    if (accept("=")) {
      parse_initial(v, element);
      if (v.bytes == 0) v.bytes = v.initial.size();
      v.initial.resize(v.bytes);
    }
    return v;
  }

  void parse_initial(Variable& v, uint32_t element) {
    if (accept("{")) {
      while (!accept("}")) {
        parse_initial(v, element);
        accept(",");
      }
      return;
    }
    const size_t at = v.initial.size();
    v.initial.resize(at + element);
    if (peek().kind == Token::word) {
      const bool generic = accept("generic");
      if (generic) expect("(");
      Relocation relocation{at, element, word(), 0, generic};
      if (generic) expect(")");
      if (accept("+")) relocation.offset = static_cast<int64_t>(integer());
      v.relocations.push_back(relocation);
      return;
    }
    Operand value = parse_number();
    if (value.kind == Kind::real && element == 4) {
      value.bits = std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(value.bits)));
    } else if (value.kind == Kind::integer && v.type.is_float) {
      const auto number = static_cast<double>(static_cast<int64_t>(value.bits));
      value.bits = element == 4 ? std::bit_cast<uint32_t>(static_cast<float>(number))
                                : std::bit_cast<uint64_t>(number);
    }
    if (is("(")) fail("a value without a mask");
    std::memcpy(v.initial.data() + at, &value.bits, element);
  }

  // --- Functions

  void parse_function() {
    Function f;
    f.is_kernel = word() == ".entry";
    function_ = &f;
    scopes_.assign(1, Scope{});
    uses_.clear();
    scope_ = 0;
    accept(".noreturn");
    if (is("(")) parse_parameters(f.results);
    accept(".noreturn");
    f.name = word();
    if (is("(")) parse_parameters(f.parameters);
    parse_directives(f);
    if (is("{")) {
      f.has_body = true;
      next();
      parse_body();
      resolve();
    } else {
      expect(";");
    }
    function_ = nullptr;
    for (Function& known : module_.functions) {  // declared before
      if (known.name != f.name) continue;
      if (f.has_body) known = std::move(f);
      return;
    }
    module_.functions.push_back(std::move(f));
  }

  void parse_parameters(std::vector<uint32_t>& to) {
    expect("(");
    while (!accept(")")) {
      if (is(".reg")) fail(".param");
      Variable v = parse_variable();
      v.is_parameter = true;
      to.push_back(add_variable(std::move(v)));
      accept(",");
    }
  }

  uint32_t add_variable(Variable v) {
    const auto index = static_cast<uint32_t>(function_->variables.size());
    scopes_[scope_].names[v.name] = {Kind::local, index};
    function_->variables.push_back(std::move(v));
    return index;
  }

  void parse_three(uint32_t out[3]) {
    for (int i = 0; i < 3; ++i) {
      out[i] = static_cast<uint32_t>(integer());
      if (!accept(",")) {
        for (++i; i < 3; ++i) out[i] = 1;
        return;
      }
    }
  }

  void parse_directives(Function& f) {
    while (peek().text.starts_with(".")) {
      const std::string_view directive = next().text;
      if (directive == ".maxntid") {
        parse_three(f.max_threads);
      } else if (directive == ".reqntid") {
        parse_three(f.required_threads);
      } else if (directive == ".minnctapersm") {
        f.min_blocks_per_sm = static_cast<uint32_t>(integer());
      } else if (directive == ".maxnreg") {
        f.max_registers = static_cast<uint32_t>(integer());
      } else if (directive == ".pragma") {
        skip_statement();
      } else {  // of clusters and the like
        while (peek().kind == Token::number || is(",") || peek().kind == Token::string) next();
      }
    }
  }

  void parse_body() {
    while (!accept("}")) {
      if (peek().kind == Token::end) fail("'}'");
      parse_statement();
    }
  }

  void parse_statement() {
    const Token& token = peek();
    if (accept(";")) return;
    if (accept("{")) {
      const size_t outer = scope_;
      scopes_.push_back({static_cast<int32_t>(outer), {}});
      scope_ = scopes_.size() - 1;
      parse_body();
      scope_ = outer;
    } else if (token.text == ".loc") {
      parse_location();
    } else if (token.text == ".reg") {
      parse_registers();
    } else if (token.text == ".pragma") {
      skip_statement();
    } else if (space_of(token.text) != Space::none) {
      add_variable(parse_variable());
      expect(";");
    } else if (token.kind == Token::word && peek(1).text == ":") {
      parse_label();
    } else {
      parse_instruction();
    }
  }

  void parse_label() {
    const std::string_view name = next().text;
    expect(":");
    if (accept(".branchtargets")) {
      const auto index = static_cast<uint32_t>(function_->branch_tables.size());
      function_->branch_tables.emplace_back();
      scopes_[scope_].names[name] = {Kind::table, index};
      while (!accept(";")) {
        tables_.push_back({index, word(), scope_});
        accept(",");
      }
    } else if (is(".callprototype") || is(".calltargets")) {
      scopes_[scope_].names[name] = {Kind::prototype, 0};
      skip_statement();
    } else {
      const auto index = static_cast<uint32_t>(function_->labels.size());
      scopes_[scope_].names[name] = {Kind::label, index};
      function_->labels.push_back({name, static_cast<uint32_t>(function_->instructions.size())});
    }
  }

  void parse_location() {
    next();
    Location here;
    here.file = static_cast<uint32_t>(integer());
    here.line = static_cast<uint32_t>(integer());
    integer();  // column
    while (accept(",")) {
      if (accept("function_name")) {
        word();
        if (accept("+")) integer();
      } else {
        expect("inlined_at");
        const auto file = static_cast<uint32_t>(integer());
        const auto line = static_cast<uint32_t>(integer());
        integer();
        here.inlined_at = last_location(file, line);
      }
    }
    const auto index = static_cast<int32_t>(module_.locations.size());
    module_.locations.push_back(here);
    known_[uint64_t{here.file} << 32 | here.line] = index;
    if (here.line != 0) location_ = index;
  }

  int32_t last_location(uint32_t file, uint32_t line) {
    const auto [found, is_new] = known_.try_emplace(uint64_t{file} << 32 | line, 0);
    if (is_new) {
      found->second = static_cast<int32_t>(module_.locations.size());
      module_.locations.push_back({file, line, -1});
    }
    return found->second;
  }

  void parse_registers() {
    next();
    const Type type = type_of(word());
    if (type.bits == 0) fail("a register type");
    do {
      const std::string_view name = word();
      if (!accept("<")) {
        add_register(name, type);
        continue;
      }
      const uint64_t count = integer();
      expect(">");
      for (uint64_t i = 0; i < count; ++i)
        add_register(keep(std::string(name) + std::to_string(i)), type);
    } while (accept(","));
    expect(";");
  }

  void add_register(std::string_view name, Type type) {
    scopes_[scope_].names[name] = {Kind::reg, static_cast<uint32_t>(function_->registers.size())};
    function_->registers.push_back({name, type});
  }

  // Names that are not in the text, such as %r17 of .reg .b32 %r<20>.
  std::string_view keep(std::string name) { return module_.names.emplace_back(std::move(name)); }

  // --- Instructions

  void parse_instruction() {
    Instruction in;
    const Token& first = peek();
    in.line = first.line;
    in.location = location_;
    guard_ = {};
    if (accept("@")) {
      in.guard_negated = accept("!");
      guard_ = word();
    }
    const std::string_view opcode = word();
    in.opcode = opcode;
    while (peek().kind == Token::word && peek().text.starts_with("."))
      in.modifiers.push_back(next().text.substr(1));
    while (!is(";")) {
      if (peek().kind == Token::end) fail("';'");
      in.operands.push_back(parse_operand(opcode == "call"));
      if (!is(";")) expect(",");
    }
    const Token& last = next();
    in.text = std::string_view(first.text.data(),
                               static_cast<size_t>(last.text.data() - first.text.data()) + 1);
    uses_.push_back({scope_, guard_});
    function_->instructions.push_back(std::move(in));
  }

  Operand parse_number() {
    const bool negative = accept("-");
    if (peek().kind != Token::number) fail("a number");
    Operand o = literal(next().text);
    if (negative) o.bits = o.kind == Kind::integer ? 0 - o.bits : o.bits ^ (uint64_t{1} << 63);
    return o;
  }

  // A name: `symbol` until resolve() knows what it is.
  Operand parse_name() {
    Operand o;
    o.kind = Kind::symbol;
    o.name = word();
    if (o.name.starts_with("%")) {  // %tid.x
      while (peek().kind == Token::word && peek().text.starts_with(".") &&
             peek().text.data() == o.name.data() + o.name.size()) {
        o.name = std::string_view(o.name.data(), o.name.size() + next().text.size());
      }
    }
    if (is("+") || is("-")) {
      const bool minus = next().text == "-";
      const auto offset = static_cast<int64_t>(integer());
      o.offset = minus ? -offset : offset;
    }
    return o;
  }

  Operand parse_operand(bool of_call) {
    Operand o;
    if (accept("{")) {
      o.kind = Kind::vector;
      while (!accept("}")) {
        o.elements.push_back(parse_operand(false));
        accept(",");
      }
    } else if (of_call && accept("(")) {
      o.kind = Kind::list;
      while (!accept(")")) {
        o.elements.push_back(parse_operand(false));
        accept(",");
      }
    } else if (accept("[")) {
      o.kind = Kind::address;
      Operand base = peek().kind == Token::word ? parse_name() : parse_number();
      o.offset = base.offset;
      base.offset = 0;
      if (accept("+")) o.offset += static_cast<int64_t>(integer());
      o.elements.push_back(std::move(base));
      if (is(",")) fail("']'");
      expect("]");
    } else if (accept("!")) {
      o = parse_name();
      o.negated = true;
    } else if (is("_")) {
      next();
    } else if (peek().kind == Token::word) {
      o = parse_name();
    } else {
      o = parse_number();
    }
    if (accept("|")) {
      Operand pair;
      pair.kind = Kind::pair;
      pair.elements.push_back(std::move(o));
      pair.elements.push_back(parse_operand(false));
      return pair;
    }
    return o;
  }

  // --- Names

  const Name* find(std::string_view name, size_t scope) const {
    for (int32_t s = static_cast<int32_t>(scope); s >= 0;
         s = scopes_[static_cast<size_t>(s)].outer) {
      const auto& names = scopes_[static_cast<size_t>(s)].names;
      if (const auto found = names.find(name); found != names.end()) return &found->second;
    }
    return nullptr;
  }

  void resolve_operand(Operand& o, size_t scope) {
    for (Operand& element : o.elements) resolve_operand(element, scope);
    if (o.kind != Kind::symbol) return;
    if (const Name* name = find(o.name, scope)) {
      o.kind = name->kind;
      o.index = name->index;
    } else if (o.name.starts_with("%") || o.name == "WARP_SZ") {
      o.kind = Kind::special;
    }
  }

  void resolve() {
    for (size_t i = 0; i < function_->instructions.size(); ++i) {
      Instruction& in = function_->instructions[i];
      for (Operand& operand : in.operands) resolve_operand(operand, uses_[i].scope);
      if (uses_[i].guard.empty()) continue;
      const Name* guard = find(uses_[i].guard, uses_[i].scope);
      if (guard == nullptr || guard->kind != Kind::reg) {
        throw std::runtime_error("PTX line " + std::to_string(in.line) +
                                 ": expected a predicate, got '" + std::string(uses_[i].guard) +
                                 "': " + std::string(in.text));
      }
      in.guard = static_cast<int32_t>(guard->index);
    }
    for (const TableEntry& entry : tables_) {
      const Name* label = find(entry.label, entry.scope);
      if (label == nullptr) throw std::runtime_error("PTX: no label " + std::string(entry.label));
      function_->branch_tables[entry.table].push_back(label->index);
    }
    tables_.clear();
  }

  struct Use {
    size_t scope = 0;
    std::string_view guard;
  };
  struct TableEntry {
    uint32_t table = 0;
    std::string_view label;
    size_t scope = 0;
  };

  Module& module_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  Function* function_ = nullptr;
  std::vector<Scope> scopes_;
  size_t scope_ = 0;
  std::vector<Use> uses_;  // one an instruction
  std::vector<TableEntry> tables_;
  std::string_view guard_;
  uint32_t vector_ = 1;
  int32_t location_ = -1;
  std::unordered_map<uint64_t, int32_t> known_;  // file and line -> the last location
};

}  // namespace

std::unique_ptr<Module> parse(std::string text) {
  auto module = std::make_unique<Module>();
  module->text = std::move(text);
  Parser(*module).run();
  return module;
}

}  // namespace longclock::emulator::ptx
