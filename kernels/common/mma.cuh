// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "longclock/common/dtype.h"

namespace longclock {

// Whether this architecture multiplies 16 x 16 by 16 x 8 elements of T on tensor cores: fp16 from
// sm_75 on (there in two steps of 8), bf16 from sm_80 on.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <class T>
constexpr bool kHasMma = sizeof(T) == 2;
#else
template <class T>
constexpr bool kHasMma = __is_same(T, Float16);
#endif

// c += A B with fp32 accumulation. Lane 4 g + t holds of A: a0, a1 at rows g and g + 8, columns 2 t
// and 2 t + 1, and a2, a3 at the same rows, columns 8 further; of B: b0, b1 at the same places of
// column g; of C: c[0], c[1] at row g, c[2], c[3] at row g + 8, columns 2 t and 2 t + 1.
template <class T>
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                            uint32_t a3, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (__is_same(T, Float16)) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a2), "r"(a3), "r"(b1));
#endif
}

// The same of 16 x 8 by 8 x 8 elements of fp32 of which the upper 19 bits count (TF32): a0, a1 at
// rows g and g + 8, column t; a2, a3 at column t + 4; b0 at row t of column g, b1 at row t + 4.
// sm_80 and later.
__device__ __forceinline__ void mma_16x8x8_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c = A B, of the same.
__device__ __forceinline__ void first_mma_16x8x8_tf32(float (&c)[4], const uint32_t (&a)[4],
                                                      uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

// The nearest number of TF32, and what is left. sm_80 and later.
__device__ __forceinline__ void split_tf32(float value, uint32_t& near, uint32_t& rest) {
  asm("cvt.rna.tf32.f32 %0, %2;\n\tsub.f32 %1, %2, %0;" : "=&r"(near), "=r"(rest) : "f"(value));
}

// Four matrices of 8 rows of 16 bytes from shared memory; lane 8 i + r gives the address of row r
// of matrix i. Lane 4 g + t receives of each the word t of row g.
__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(row));
}

// The same of matrices turned over: lane 4 g + t receives of each the elements g of rows 2 t and
// 2 t + 1. Of two matrices lanes 0 to 15 give the addresses.
__device__ __forceinline__ void load_turned(uint32_t (&words)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void load_turned(uint32_t (&words)[2], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(words[0]), "=r"(words[1])
               : "r"(row)
               : "memory");
}

}  // namespace longclock
