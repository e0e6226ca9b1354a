// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/dtype.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Calls f(typed pointer to element `begin`) for int32 or int64 data.
template <class F>
inline void with_ints(const IntArray& ints, int64_t begin, F&& f) {
  if (ints.is_64) {
    f(static_cast<const int64_t*>(ints.data) + begin);
  } else {
    f(static_cast<const int32_t*>(ints.data) + begin);
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
