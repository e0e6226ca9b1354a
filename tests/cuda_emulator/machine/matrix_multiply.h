// SPDX-License-Identifier: Apache-2.0
// D = A * B + C of a warp, for mma and wmma alike: fragments to dense matrices, a small dense
// product, and back.
#pragma once

#include <string>
#include <string_view>

#include "decode.h"
#include "fragments.h"

namespace longclock::emulator {

// Of the instruction; fragments that do not fit the operands make the form unknown.
struct MultiplyForm {
  Shape shape;  // k as written
  std::string_view d, a, b, c;
  bool saturate = false;
  bool and_popc = false;  // b1: and instead of xor
  bool wmma = false;
  bool a_by_columns = false, b_by_columns = false;  // of wmma
};

// Lays out operands d, a, b, c. nullptr: no such form.
Handler lay_out_multiply(Decode& d, const MultiplyForm& form);

// All 32 lanes take part in any matrix instruction. Lays out, as the last operand, the member mask
// that makes lanes of diverged groups wait for each other; at run time, the first lane that does
// not exist, has ended or never comes is reported.
void all_lanes_are_members(Decode& d);
void require_all_lanes(Warp& w, const Instruction& in, uint32_t lanes);

}  // namespace longclock::emulator
