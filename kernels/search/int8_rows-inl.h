// SPDX-License-Identifier: Apache-2.0
// Rows of int8, each with a scale. A behaviour's product is that of its elements with the query's,
// times its row's scale; queries have a scale each in place of the search's, for those of int8 have
// their own. With a query of int8 the product of the elements is an integer that a float holds, so
// whatever it is multiplied by, and in whatever order, it has the same bits.
#pragma once

#include "longclock/search/behaviours.h"
#include "longclock/search/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Whether rows of T have a scale each.
template <class T>
inline constexpr bool kAreScaled = false;
template <class Query>
inline constexpr bool kAreScaled<Int8By<Query>> = true;

// Calls f with an element of the behaviours' rows, as this level multiplies them.
template <class F>
inline void with_elements(const Behaviours& b, const F& f) {
  if (b.dtype == DType::kInt8) {
#if defined(__AVX512BF16__)
    if (b.query_dtype == DType::kInt8) return f(Int8By<int8_t>{});
    if (b.query_dtype == DType::kBFloat16) return f(Int8By<BFloat16>{});
#endif
    return f(Int8By<float>{});
  }
  LONGCLOCK_WITH_DTYPE(b.dtype, T, f(T{}));
}

// The elements of kernels that have no sums of integers.
template <class T>
struct AsFloats {
  using Type = T;
};
template <>
struct AsFloats<Int8By<int8_t>> {
  using Type = Int8By<BFloat16>;
};

// What a query's products are multiplied by: `scale`, or what lies behind the query.
template <class T>
inline float query_scale(const Behaviours& b, const float* query, float scale) {
  if constexpr (kAreScaled<T>) return query[round_up(b.dim, 16)];
  return scale;
}

// The scales of the rows of behaviours begin to begin + n of the group; 0 of those without a row.
template <class Block>
inline void read_scales(const Behaviours& b, const Group& g, int64_t begin, int64_t n,
                        const Block& block, float* scales) {
  const int64_t at = g.position + begin;
  for (int64_t i = 0; i < n; ++i) {
    const bool valid = block.all_valid || block.valid[i] != 0;
    scales[i] = valid ? b.key_scale[b.ids ? b.ids[at + i] : at + i] : 0.0f;
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
