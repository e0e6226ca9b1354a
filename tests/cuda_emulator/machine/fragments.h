// SPDX-License-Identifier: Apache-2.0
// Where the elements of a matrix lie in the registers of a warp.
//
// An operand of mma is a list of registers. Element `sub` of register j in lane l is its value
// number (j * 32 + l) * per_register + sub, which is also its place in memory order once the rows
// of the registers are laid end to end. A fragment is a permutation from the matrix to values.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "warp.h"

namespace longclock::emulator {

// Type of an element. b1 comes in words of 32: its k counts words.
struct MatrixType {
  std::string_view name;
  uint8_t bits = 0;           // of an element
  uint8_t register_bits = 0;  // 32 or 64
  unsigned per_register() const { return register_bits / bits; }
};
// bits == 0: unknown.
MatrixType matrix_type(std::string_view name);

struct Shape {
  unsigned m = 0, n = 0, k = 0;
};
// "m16n8k16"; m == 0: not one.
Shape parse_shape(std::string_view text);

struct Fragment {
  MatrixType type;
  unsigned rows = 0, columns = 0;
  unsigned registers = 0;
  std::vector<uint16_t> value;  // of the element at row * columns + column

  unsigned per_register() const { return type.per_register(); }
};

enum class Role : uint8_t { a, b, accumulator };

// As PTX defines it for mma of sm_75 and later: A is m x k, B k x n, the accumulator m x n; k of b1
// in words. registers == 0: no such fragment.
Fragment mma_fragment(Role role, Shape shape, MatrixType type);

// PTX leaves the fragments of wmma open. Here, lanes take turns at chunks of up to 16 bytes (four
// elements of an accumulator) in the order of memory, which is by rows for accumulators, whatever
// way they are loaded; where the registers hold a matrix several times, the copies follow each
// other. `registers` is what the instruction has.
Fragment wmma_fragment(Role role, Shape shape, MatrixType type, bool column_major,
                       unsigned registers);

// The part of such a fragment that one access of each lane moves.
struct WmmaChunks {
  unsigned bytes = 0;   // a chunk
  unsigned chunks = 0;  // of the matrix
  unsigned rounds = 0;  // chunks a lane holds, copies included
};
WmmaChunks wmma_chunks(Role role, Shape shape, MatrixType type, unsigned registers);

}  // namespace longclock::emulator
