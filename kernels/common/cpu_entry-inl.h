// SPDX-License-Identifier: Apache-2.0
// The choice of the SIMD level, written where the body ends.
#pragma once

#include <cstdint>

#include "longclock/common/simd_level.h"

// LONGCLOCK_CPU_ENTRY(f, Params), outside the level's namespace, defines what the header declares
// as f_cpu(const Params&, int64_t begin, int64_t end): a call of the f of the level in use. It does
// so in the file of the scalar level alone, whose flags are the baseline's: LONGCLOCK_CPU_ENTRIES
// is defined there (cmake/LongclockLevels.cmake). In the other levels' files it is nothing.
// LONGCLOCK_CPU_BF16_ENTRY is for a body that has a level for pairs of bfloat16; one that has none
// runs its AVX-512 code at that level.
#if !defined(LONGCLOCK_CPU_ENTRIES)
#define LONGCLOCK_CPU_ENTRY(f, Params)
#define LONGCLOCK_CPU_BF16_ENTRY(f, Params)
#elif !defined(LONGCLOCK_X86)
#define LONGCLOCK_CPU_ENTRY(f, Params) \
  LONGCLOCK_CPU_SIGNATURE(longclock::f##_cpu, f, Params) { return scalar::f(p, begin, end); }
#define LONGCLOCK_CPU_BF16_ENTRY(f, Params) LONGCLOCK_CPU_ENTRY(f, Params)
#else
#define LONGCLOCK_CPU_ENTRY(f, Params) LONGCLOCK_CPU_CHOICE(f, Params, avx512)
#define LONGCLOCK_CPU_BF16_ENTRY(f, Params) LONGCLOCK_CPU_CHOICE(f, Params, avx512_bf16)
#define LONGCLOCK_CPU_CHOICE(f, Params, bf16_level)        \
  namespace longclock::avx2 {                              \
  LONGCLOCK_CPU_SIGNATURE(f, f, Params);                   \
  }                                                        \
  namespace longclock::avx512 {                            \
  LONGCLOCK_CPU_SIGNATURE(f, f, Params);                   \
  }                                                        \
  namespace longclock::bf16_level {                        \
  LONGCLOCK_CPU_SIGNATURE(f, f, Params);                   \
  }                                                        \
  LONGCLOCK_CPU_SIGNATURE(longclock::f##_cpu, f, Params) { \
    switch (simd_level()) {                                \
      case SimdLevel::kAvx512Bf16:                         \
        return bf16_level::f(p, begin, end);               \
      case SimdLevel::kAvx512:                             \
        return avx512::f(p, begin, end);                   \
      case SimdLevel::kAvx2:                               \
        return avx2::f(p, begin, end);                     \
      default:                                             \
        return scalar::f(p, begin, end);                   \
    }                                                      \
  }
#endif
// Returns what the body's f returns.
#define LONGCLOCK_CPU_SIGNATURE(name, f, Params)         \
  auto name(const Params& p, int64_t begin, int64_t end) \
      -> decltype(longclock::scalar::f(p, begin, end))
