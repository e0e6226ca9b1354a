// SPDX-License-Identifier: Apache-2.0
#pragma once

// For functions in headers that every SIMD level includes: inlined always, so that no copy compiled
// for one level can be linked into another.
#define LONGCLOCK_INLINE inline __attribute__((always_inline))
