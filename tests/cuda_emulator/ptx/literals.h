// SPDX-License-Identifier: Apache-2.0
// The words of PTX that stand for values, types and spaces.
#pragma once

#include <string_view>

#include "module.h"

namespace longclock::emulator::ptx {

// An integer (decimal, 0x, 0b, 017, with or without U) or a real (1.5, 0f3F800000, 0d...),
// unsigned.
Operand literal(std::string_view text);
Type type_of(std::string_view name);         // "f32" or ".f32"; bits == 0: not a type
Space space_of(std::string_view directive);  // ".shared"; none: not a space

}  // namespace longclock::emulator::ptx
