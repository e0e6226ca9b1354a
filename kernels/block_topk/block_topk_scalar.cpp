// SPDX-License-Identifier: Apache-2.0
#define LONGCLOCK_SIMD_NAMESPACE scalar
#include "block_topk_simd-inl.h"
