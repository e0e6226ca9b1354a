// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/simd_level.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace longclock {
namespace {

constexpr SimdLevel kLevels[] = {SimdLevel::kScalar, SimdLevel::kAvx2, SimdLevel::kAvx512,
                                 SimdLevel::kAvx512Bf16};

SimdLevel initial_level() {
  const char* wanted = std::getenv("LONGCLOCK_SIMD");
  if (wanted == nullptr || *wanted == '\0') return max_simd_level();
  SimdLevel level;
  if (!parse_simd_level(wanted, &level) || level > max_simd_level()) {
    std::fprintf(stderr, "longclock: LONGCLOCK_SIMD=%s is not a level of this machine; using %s\n",
                 wanted, name(max_simd_level()));
    return max_simd_level();
  }
  return level;
}

std::atomic<SimdLevel>& current() {
  static std::atomic<SimdLevel> level{initial_level()};
  return level;
}

}  // namespace

SimdLevel max_simd_level() {
#if defined(LONGCLOCK_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) {
    return SimdLevel::kAvx512Bf16;
  }
  return avx512 ? SimdLevel::kAvx512 : avx2 ? SimdLevel::kAvx2 : SimdLevel::kScalar;
#else
  return SimdLevel::kScalar;
#endif
}

SimdLevel simd_level() { return current().load(std::memory_order_relaxed); }

bool set_simd_level(SimdLevel level) {
  if (level > max_simd_level()) return false;
  current().store(level, std::memory_order_relaxed);
  return true;
}

const char* name(SimdLevel level) {
  switch (level) {
    case SimdLevel::kAvx512Bf16:
      return "avx512_bf16";
    case SimdLevel::kAvx512:
      return "avx512";
    case SimdLevel::kAvx2:
      return "avx2";
    default:
      return "scalar";
  }
}

bool parse_simd_level(const char* text, SimdLevel* level) {
  for (SimdLevel candidate : kLevels) {
    if (std::strcmp(text, name(candidate)) == 0) {
      *level = candidate;
      return true;
    }
  }
  return false;
}

}  // namespace longclock
