// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/common/memory-inl.h"
#include "longclock/search/query_rows.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// To the nearest value of a dtype, ties to even.
inline Vf rounded(Vf v, float) { return v; }
inline Vf rounded(Vf v, BFloat16) {
  const Vu bits = (Vu)v;
  const Vu nearest = bits + 0x7fffu + (bits >> 16 & 1u);
  return (Vf)(((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : nearest) & 0xffff0000u);
}
inline Vf rounded(Vf v, Float16) {
#if defined(__AVX512F__)
  return (Vf)_mm512_maskz_cvtph_ps(0xffff, _mm512_maskz_cvtps_ph(0xffff, (__m512)v, 0));
#elif defined(__F16C__)
  return (Vf)_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)v, 0));
#else
  Float16 lanes[kLanes];
  store(v, lanes);
  return load(lanes);
#endif
}

template <class From, class To>
inline void query_row(const From* from, int64_t width, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) store(rounded(load(from + i), To()), to + i);
  if (i < width) {
    store(rounded(load_partial(from + i, width - i), To()), to + i);
    i += kLanes;
  }
  for (; i < padded_dim(width); i += kLanes) store(Vf{}, to + i);
}

template <class From, class To>
inline void query_rows_of(const QueryRowsParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const From* from = static_cast<const From*>(p.from) + row * p.row_stride;
    float* to = p.to + row * p.to_stride;
    for (int64_t w = 0; w < p.width_count; ++w) {
      query_row<From, To>(from, p.widths[w], to);
      from += p.widths[w];
      to += padded_dim(p.widths[w]);
    }
  }
}

void query_rows(const QueryRowsParams& p, int64_t begin, int64_t end) {
  LONGCLOCK_WITH_DTYPE(
      p.dtype, From, LONGCLOCK_WITH_DTYPE(p.rounded_to, To, query_rows_of<From, To>(p, begin, end)))
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(query_rows, QueryRowsParams)
