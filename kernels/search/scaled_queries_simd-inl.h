// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/common/memory-inl.h"
#include "longclock/search/scaled_queries.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// Rounds `padded` floats to int8, and returns their scale.
float to_int8(const float* from, int64_t padded, float* to) {
  // As integers sizes have their order, and what is not finite is the largest.
  Vi largest{};
  for (int64_t i = 0; i < padded; i += kLanes) {
    const Vi size = (Vi)load(from + i) & 0x7fffffff;
    largest = size > largest ? size : largest;
  }
  int32_t most = 0;
  for (int lane = 0; lane < kLanes; ++lane) most = largest[lane] > most ? largest[lane] : most;
  const bool finite = most < 0x7f800000;
  const float scale =
      finite ? bits_to_float(static_cast<uint32_t>(most)) / 127.0f : __builtin_nanf("");
  constexpr float kInteger = 0x1.8p23f;  // whose sum with a small number is rounded to an integer
  for (int64_t i = 0; i < padded; i += kLanes) {
    Vf x = load(from + i) / splat(scale);
    x = x > 127.0f ? splat(127.0f) : x < -127.0f ? splat(-127.0f) : x;
    store(scale > 0.0f ? (x + kInteger) - kInteger : Vf{}, to + i);
  }
  return scale;
}

}  // namespace

void scaled_queries(const ScaledQueriesParams& p, int64_t begin, int64_t end) {
  const int64_t padded = round_up(p.dim, 16), stride = scaled_query_stride(p.dim);
  for (int64_t q = begin; q < end; ++q) {
    const float* const from = p.queries + q * padded;
    float* const to = p.out + q * stride;
    for (int64_t i = 0; !p.to_int8 && i < padded; i += kLanes) store(load(from + i), to + i);
    to[padded] = p.to_int8 ? p.scale * to_int8(from, padded, to) : p.scale;
    for (int64_t i = padded + 1; i < stride; ++i) to[i] = 0.0f;
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(scaled_queries, ScaledQueriesParams)
