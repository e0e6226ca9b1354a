// SPDX-License-Identifier: Apache-2.0
#include "lexer.h"

#include <stdexcept>
#include <string>

namespace longclock::emulator::ptx {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '$';
}

}  // namespace

std::vector<Token> tokenize(std::string_view text) {
  std::vector<Token> tokens;
  tokens.reserve(text.size() / 4);
  uint32_t line = 1;
  size_t at = 0;
  const auto peek = [&](size_t ahead) {
    return at + ahead < text.size() ? text[at + ahead] : '\0';
  };
  const auto add = [&](Token::Kind kind, size_t begin) {
    tokens.push_back({kind, text.substr(begin, at - begin), line});
  };
  while (at < text.size()) {
    const char c = text[at];
    const size_t begin = at;
    if (c == '\n') {
      ++line;
      ++at;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\0') {
      ++at;
    } else if (c == '/' && peek(1) == '/') {
      while (at < text.size() && text[at] != '\n') ++at;
    } else if (c == '/' && peek(1) == '*') {
      while (at < text.size() && !(text[at] == '*' && peek(1) == '/')) line += text[at++] == '\n';
      at += 2;
    } else if (c == '"') {
      ++at;
      while (at < text.size() && text[at] != '"') ++at;
      tokens.push_back({Token::string, text.substr(begin + 1, at - begin - 1), line});
      ++at;
    } else if (is_digit(c)) {
      // 12, 0x1F, 0f3F800000, 1.5e+3, 7U
      ++at;
      bool real = false;
      while (is_word(peek(0)) || (peek(0) == '.' && is_digit(peek(1))) ||
             (real && (peek(0) == '+' || peek(0) == '-') &&
              (text[at - 1] == 'e' || text[at - 1] == 'E'))) {
        real |= peek(0) == '.';
        ++at;
      }
      add(Token::number, begin);
    } else if (is_word(c) || c == '%' || (c == '.' && (is_word(peek(1)) || peek(1) == ':'))) {
      ++at;
      while (is_word(peek(0)) || (peek(0) == ':' && peek(1) == ':')) at += peek(0) == ':' ? 2 : 1;
      add(Token::word, begin);
    } else {
      ++at;
      add(Token::mark, begin);
    }
  }
  tokens.push_back({Token::end, text.substr(text.size()), line});
  return tokens;
}

}  // namespace longclock::emulator::ptx
