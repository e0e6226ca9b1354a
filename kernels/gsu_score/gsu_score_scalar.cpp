// SPDX-License-Identifier: Apache-2.0
#define LONGCLOCK_SIMD_NAMESPACE scalar
#include "gsu_score_simd-inl.h"
