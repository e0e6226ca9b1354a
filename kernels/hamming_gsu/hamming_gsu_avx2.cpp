// SPDX-License-Identifier: Apache-2.0
#define LONGCLOCK_SIMD_NAMESPACE avx2
#include "hamming_gsu_simd-inl.h"
