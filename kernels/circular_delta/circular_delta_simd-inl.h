// SPDX-License-Identifier: Apache-2.0
#include "../common/simd-inl.h"
#include "circular_delta.h"
#include "clock-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Along the innermost dimension, in blocks that stay in the first-level cache.
void circular_delta(const CircularDeltaParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 512;
  int32_t a[kBlock], b[kBlock];
  const int last = p.dims - 1;
  const int64_t columns = p.sizes[last];
  const int32_t period = static_cast<int32_t>(p.period);
  const bool wide = p.a.is_64 || p.b.is_64;
  for (int64_t at = begin; at < end;) {
    const int64_t column = at % columns;
    const int64_t n = smaller(smaller(kBlock, columns - column), end - at);
    int64_t a_at = column * p.a_strides[last], b_at = column * p.b_strides[last];
    int64_t row = at / columns;
    for (int d = last - 1; d >= 0; --d) {
      a_at += row % p.sizes[d] * p.a_strides[d];
      b_at += row % p.sizes[d] * p.b_strides[d];
      row /= p.sizes[d];
    }
    clock_times(p.a, a_at, p.a_strides[last], n, p.period, a);
    clock_times(p.b, b_at, p.b_strides[last], n, p.period, b);
    if (wide) {
      int64_t* out = static_cast<int64_t*>(p.out) + at;
      for (int64_t i = 0; i < n; ++i) out[i] = circular_delta(a[i], b[i], period);
    } else {
      int32_t* out = static_cast<int32_t*>(p.out) + at;
      for (int64_t i = 0; i < n; ++i) out[i] = circular_delta(a[i], b[i], period);
    }
    at += n;
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
