// SPDX-License-Identifier: Apache-2.0
#define LONGCLOCK_SIMD_NAMESPACE scalar
#include "circular_delta_simd-inl.h"
