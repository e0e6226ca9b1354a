// SPDX-License-Identifier: Apache-2.0
#include "library_info.h"

#include <cstring>

#include "longclock/common/simd_level.h"

namespace {

constexpr struct {
  const char* key;
  const char* value;
} kBuildInfo[] = {
    {"version", LONGCLOCK_VERSION},   {"compiler", LONGCLOCK_COMPILER},
    {"cuda", LONGCLOCK_CUDA_VERSION}, {"cuda_archs", LONGCLOCK_CUDA_ARCHS},
    {"torch_target", "2.10"},         {"torch_built_with", LONGCLOCK_BUILD_TORCH},
};
static_assert(TORCH_TARGET_VERSION >> 56 == 2 && (TORCH_TARGET_VERSION >> 48 & 0xff) == 10);

}  // namespace

const char* longclock_build_info(const char* key) {
  for (const auto& [name, value] : kBuildInfo) {
    if (std::strcmp(name, key) == 0) return value;
  }
  return nullptr;
}

const char* longclock_simd_levels_built() {
#if defined(LONGCLOCK_X86)
  return "scalar,avx2,avx512,avx512_bf16";
#else
  return "scalar";
#endif
}

const char* longclock_max_simd_level() { return longclock::name(longclock::max_simd_level()); }

const char* longclock_simd_level() { return longclock::name(longclock::simd_level()); }

int longclock_set_simd_level(const char* name) {
  longclock::SimdLevel level;
  return longclock::parse_simd_level(name, &level) && longclock::set_simd_level(level) ? 0 : -1;
}
