// SPDX-License-Identifier: Apache-2.0
// For tests: a body run at every SIMD level of this machine.
#pragma once

#include <gtest/gtest.h>

#include "longclock/common/simd_level.h"

namespace longclock {

template <class F>
void for_each_level(const F& body) {
  for (SimdLevel level :
       {SimdLevel::kScalar, SimdLevel::kAvx2, SimdLevel::kAvx512, SimdLevel::kAvx512Bf16}) {
    if (!set_simd_level(level)) continue;
    SCOPED_TRACE(name(level));
    body();
  }
  set_simd_level(max_simd_level());
}

}  // namespace longclock
