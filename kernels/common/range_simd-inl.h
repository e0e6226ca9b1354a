// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/common/ints-inl.h"
#include "longclock/common/memory-inl.h"
#include "longclock/common/range.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Without a branch a value, for almost always all of them are: x = value - low is in [0, width]
// where neither x nor width - x has the sign bit.
bool all_between(const RangeParams& p, int64_t begin, int64_t end) {
  if (p.low > p.high) return begin >= end;
  const uint64_t least = static_cast<uint64_t>(p.low),
                 width = static_cast<uint64_t>(p.high) - least;
  uint64_t signs = 0;
  with_ints(p.values, begin, [&](auto* value) {
    const int64_t n = end - begin;
    Vq even = {}, odd = {};  // two sums, neither of which waits for the other
    int64_t i = 0;
    for (; i + 2 * kWideLanes <= n; i += 2 * kWideLanes) {
      const Vq x = load_wide(value + i) - least, y = load_wide(value + i + kWideLanes) - least;
      even |= x | (width - x);
      odd |= y | (width - y);
    }
    even |= odd;
    for (int lane = 0; lane < kWideLanes; ++lane) signs |= even[lane];
    for (; i < n; ++i) {
      const uint64_t x = static_cast<uint64_t>(int64_t{value[i]}) - least;
      signs |= x | (width - x);
    }
  });
  return signs >> 63 == 0;
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(all_between, RangeParams)
