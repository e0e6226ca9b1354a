// SPDX-License-Identifier: Apache-2.0
#include "literals.h"

#include <bit>
#include <cstdlib>
#include <string>

namespace longclock::emulator::ptx {

Operand literal(std::string_view text) {
  Operand o;
  o.kind = Operand::Kind::real;
  std::string digits(text);
  const bool zero = digits[0] == '0';
  const char letter = digits.size() > 1 ? digits[1] : ' ';
  if (zero && digits.size() == 10 && (letter == 'f' || letter == 'F')) {
    const auto bits = static_cast<uint32_t>(std::strtoul(digits.c_str() + 2, nullptr, 16));
    o.bits = std::bit_cast<uint64_t>(static_cast<double>(std::bit_cast<float>(bits)));
    return o;
  }
  if (zero && digits.size() == 18 && (letter == 'd' || letter == 'D')) {
    o.bits = std::strtoull(digits.c_str() + 2, nullptr, 16);
    return o;
  }
  const bool hexadecimal = letter == 'x' || letter == 'X';
  if (!hexadecimal && text.find_first_of(".eE") != std::string_view::npos) {
    o.bits = std::bit_cast<uint64_t>(std::strtod(digits.c_str(), nullptr));
    return o;
  }
  o.kind = Operand::Kind::integer;
  while (digits.back() == 'U' || digits.back() == 'u') digits.pop_back();
  const bool binary = zero && (letter == 'b' || letter == 'B');
  o.bits = binary ? std::strtoull(digits.c_str() + 2, nullptr, 2)
                  : std::strtoull(digits.c_str(), nullptr, 0);
  return o;
}

Type type_of(std::string_view name) {
  if (name.starts_with('.')) name.remove_prefix(1);
  if (name == "pred") return {1, false, false};
  if (name == "f16x2" || name == "bf16x2") return {32, true, false};
  if (name == "bf16") return {16, true, false};
  if (name.size() < 2) return {};
  const int bits = std::atoi(std::string(name.substr(1)).c_str());
  if (bits != 8 && bits != 16 && bits != 32 && bits != 64 && bits != 128) return {};
  switch (name[0]) {
    case 'b':
    case 'u':
      return {static_cast<uint8_t>(bits), false, false};
    case 's':
      return {static_cast<uint8_t>(bits), false, true};
    case 'f':
      return {static_cast<uint8_t>(bits), true, false};
    default:
      return {};
  }
}

Space space_of(std::string_view name) {
  if (name == ".param") return Space::param;
  if (name == ".local") return Space::local;
  if (name == ".shared") return Space::shared;
  if (name == ".global") return Space::global;
  if (name == ".const") return Space::constant;
  return Space::none;
}

}  // namespace longclock::emulator::ptx
