// SPDX-License-Identifier: Apache-2.0
#define LONGCLOCK_SIMD_NAMESPACE scalar
#include "hamming_gsu_simd-inl.h"
