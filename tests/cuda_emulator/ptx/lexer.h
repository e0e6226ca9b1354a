// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace longclock::emulator::ptx {

struct Token {
  enum Kind : uint8_t { word, number, string, mark, end };
  Kind kind = end;
  std::string_view text;  // of a string: without its quotes
  uint32_t line = 0;
};

// Words are identifiers, registers (%r1) and directives or modifiers with their dot (.u32,
// .L2::128B).
std::vector<Token> tokenize(std::string_view text);

}  // namespace longclock::emulator::ptx
