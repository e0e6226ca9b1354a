// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace longclock {

// Instruction sets that CPU kernels are compiled for, each from the same body. AVX512_BF16, which
// multiplies pairs of bfloat16, is a level of its own, since its scores have bits of their own; the
// kernels that have no use for it run their AVX-512 body there. Every machine that has it
// multiplies fours of int8 as well (AVX512_VNNI).
enum class SimdLevel { kScalar, kAvx2, kAvx512, kAvx512Bf16 };

// The level in use: the best that this machine has, or what LONGCLOCK_SIMD names (read once).
SimdLevel simd_level();
// The best level of this machine and this build.
SimdLevel max_simd_level();
// Chooses a level; false, with nothing changed, where the machine lacks it.
bool set_simd_level(SimdLevel level);
const char* name(SimdLevel level);
// Finds a level by its name; false for an unknown one.
bool parse_simd_level(const char* text, SimdLevel* level);

}  // namespace longclock
