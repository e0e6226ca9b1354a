// SPDX-License-Identifier: Apache-2.0
#include "../common/simd-inl.h"
#include "circular_delta.h"
#include "clock-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Row by row, in blocks that stay in the first-level cache.
void circular_delta(const CircularDeltaParams& p, int64_t row_begin, int64_t row_end) {
  constexpr int64_t kBlock = 512;
  int32_t a[kBlock], b[kBlock];
  const int last = p.dims - 1;
  const int64_t columns = p.sizes[last];
  const int32_t period = static_cast<int32_t>(p.period);
  const bool wide = p.a.is_64 || p.b.is_64;
  for (int64_t row = row_begin; row < row_end; ++row) {
    int64_t a_row = 0, b_row = 0, rest = row;
    for (int d = last - 1; d >= 0; --d) {
      const int64_t i = rest % p.sizes[d];
      rest /= p.sizes[d];
      a_row += i * p.a_strides[d];
      b_row += i * p.b_strides[d];
    }
    for (int64_t begin = 0; begin < columns; begin += kBlock) {
      const int64_t n = smaller(kBlock, columns - begin);
      clock_times(p.a, a_row + begin * p.a_strides[last], p.a_strides[last], n, p.period, a);
      clock_times(p.b, b_row + begin * p.b_strides[last], p.b_strides[last], n, p.period, b);
      const int64_t at = row * columns + begin;
      if (wide) {
        int64_t* out = static_cast<int64_t*>(p.out) + at;
        for (int64_t i = 0; i < n; ++i) out[i] = circular_delta(a[i], b[i], period);
      } else {
        int32_t* out = static_cast<int32_t*>(p.out) + at;
        for (int64_t i = 0; i < n; ++i) out[i] = circular_delta(a[i], b[i], period);
      }
    }
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
