// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace longclock {

// Instruction sets that CPU kernels are compiled for, each from the same body. AVX512_BF16, which
// multiplies pairs of bfloat16, is a level of its own, since its scores have bits of their own; the
// kernels that have no use for it run their AVX-512 body there.
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

// A kernel's body is compiled once per level, into a namespace of its own, so that no shared inline
// function is ever compiled with another level's flags.
#if defined(LONGCLOCK_X86)
#define LONGCLOCK_DECLARE_LEVELS(...) \
  namespace scalar {                  \
  __VA_ARGS__;                        \
  }                                   \
  namespace avx2 {                    \
  __VA_ARGS__;                        \
  }                                   \
  namespace avx512 {                  \
  __VA_ARGS__;                        \
  }
// The same, for kernels that multiply pairs of bfloat16.
#define LONGCLOCK_DECLARE_BF16_LEVELS(...) \
  LONGCLOCK_DECLARE_LEVELS(__VA_ARGS__)    \
  namespace avx512_bf16 {                  \
  __VA_ARGS__;                             \
  }
#define LONGCLOCK_CALL_LEVEL(...)             \
  switch (::longclock::simd_level()) {        \
    case ::longclock::SimdLevel::kAvx512Bf16: \
    case ::longclock::SimdLevel::kAvx512:     \
      return avx512::__VA_ARGS__;             \
    case ::longclock::SimdLevel::kAvx2:       \
      return avx2::__VA_ARGS__;               \
    default:                                  \
      return scalar::__VA_ARGS__;             \
  }
#define LONGCLOCK_CALL_BF16_LEVEL(...)                                  \
  if (::longclock::simd_level() == ::longclock::SimdLevel::kAvx512Bf16) \
    return avx512_bf16::__VA_ARGS__;                                    \
  LONGCLOCK_CALL_LEVEL(__VA_ARGS__)
#else
#define LONGCLOCK_DECLARE_LEVELS(...) \
  namespace scalar {                  \
  __VA_ARGS__;                        \
  }
#define LONGCLOCK_DECLARE_BF16_LEVELS(...) LONGCLOCK_DECLARE_LEVELS(__VA_ARGS__)
#define LONGCLOCK_CALL_LEVEL(...) return scalar::__VA_ARGS__
#define LONGCLOCK_CALL_BF16_LEVEL(...) LONGCLOCK_CALL_LEVEL(__VA_ARGS__)
#endif
