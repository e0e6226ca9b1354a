// SPDX-License-Identifier: Apache-2.0
#pragma once

// For functions in headers that every SIMD level includes: inlined always, so that no copy compiled
// for one level can be linked into another. Kernels may call them too.
#ifdef __CUDACC__
#define LONGCLOCK_INLINE __host__ __device__ inline __attribute__((always_inline))
#else
#define LONGCLOCK_INLINE inline __attribute__((always_inline))
#endif
