// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace longclock {

// The compiler recomputes what it can; a value that went through here is kept.
template <class T>
__device__ __forceinline__ T opaque(T value) {
  if constexpr (sizeof(T) == 8) {
    asm volatile("" : "+l"(value));
  } else {
    asm volatile("" : "+r"(value));
  }
  return value;
}

}  // namespace longclock
