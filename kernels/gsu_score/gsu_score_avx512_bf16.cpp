// SPDX-License-Identifier: Apache-2.0
#define LONGCLOCK_SIMD_NAMESPACE avx512_bf16
#include "gsu_score_simd-inl.h"
