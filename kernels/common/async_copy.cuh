// SPDX-License-Identifier: Apache-2.0
// Copies from global to shared memory that go on while their thread does something else, on
// sm_80 and later.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace longclock {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
constexpr bool kHasAsyncCopy = true;
#else
constexpr bool kHasAsyncCopy = false;
#endif

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 bytes past the first-level cache, kTo and kFrom bytes behind the addresses; the last 16 - size
// of them are zeros, and not read.
template <int kTo = 0, int kFrom = 0>
__device__ __forceinline__ void copy16_async(uint32_t to, const void* from, int size) {
  asm volatile("cp.async.cg.shared.global [%0+%3], [%1+%4], 16, %2;" ::"r"(to), "l"(from),
               "r"(size), "n"(kTo), "n"(kFrom)
               : "memory");
}
// The same of 4 bytes, through the first-level cache.
__device__ __forceinline__ void copy4_async(uint32_t to, const void* from, int size) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(size)
               : "memory");
}
// What they brought, kAt bytes behind an address.
template <int kAt>
__device__ __forceinline__ uint4 load16_shared(uint32_t from) {
  uint4 words;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4+%5];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(from), "n"(kAt)
               : "memory");
  return words;
}

// Closes a group of this thread's copies.
__device__ __forceinline__ void end_copy_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits for all of this thread's groups but the last kLeft.
template <int kLeft>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

}  // namespace longclock
