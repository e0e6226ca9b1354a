// SPDX-License-Identifier: Apache-2.0
#include "longclock/circular_delta/circular_delta.h"
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/common/ints-inl.h"
#include "longclock/common/simd-inl.h"
#include "longclock/time/clock-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Along the innermost dimension, in blocks: a time that is far away slows down its own.
void circular_delta(const CircularDeltaParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 512;
  const int last = p.dims - 1;
  const int64_t columns = p.sizes[last], a_stride = p.a_strides[last], b_stride = p.b_strides[last];
  for (int64_t at = begin; at < end;) {
    const int64_t column = at % columns;
    const int64_t n = min_of(min_of(kBlock, columns - column), end - at);
    int64_t a_at = column * a_stride, b_at = column * b_stride;
    int64_t row = at / columns;
    for (int d = last - 1; d >= 0; --d) {
      a_at += row % p.sizes[d] * p.a_strides[d];
      b_at += row % p.sizes[d] * p.b_strides[d];
      row /= p.sizes[d];
    }
    with_ints(p.a, a_at, [&](auto* a) {
      with_ints(p.b, b_at, [&](auto* b) {
        using Out = decltype(*a + *b);
        circular_deltas(a, a_stride, b, b_stride, n, p.period, static_cast<Out*>(p.out) + at);
      });
    });
    at += n;
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(circular_delta, CircularDeltaParams)
