// SPDX-License-Identifier: Apache-2.0
#define LONGCLOCK_SIMD_NAMESPACE avx512_bf16
#include "clock_gsu_simd-inl.h"
