// SPDX-License-Identifier: Apache-2.0
// The time term s over short arrays. Straight-line code an element, so its bits do not depend on
// the block or vector it falls into: an entry of a table of s and a value computed on the spot
// agree.
#pragma once

#include "longclock/common/math-inl.h"
#include "longclock/time/time_mlp.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int64_t kTimeBlock = 256;

// phi of up to kTimeBlock deltas, feature by feature.
struct TimeFeatureBlock {
  alignas(64) float x[kTimeBlock];
  alignas(64) float root[kTimeBlock];
  alignas(64) float square[kTimeBlock];
  alignas(64) float log[kTimeBlock];
};

// elapsed: delta is one that elapsed_delta() gives.
template <class Int>
inline void time_features(const Int* delta, int64_t n, double unit, bool elapsed,
                          TimeFeatureBlock* f) {
  const double per_unit = 1.0 / unit;
  for (int64_t i = 0; i < n; ++i) f->x[i] = static_cast<float>(delta[i] * per_unit);
  constexpr float kPerLog2 = 1.44269504f;  // 1 / ln 2
  for (int64_t i = 0; elapsed && i < n; ++i) f->x[i] = log1p(f->x[i]) * kPerLog2;
  for (int64_t i = 0; i < n; ++i) {
    f->root[i] = __builtin_sqrtf(f->x[i]);
    f->square[i] = f->x[i] * f->x[i];
    f->log[i] = log1p(f->x[i]);
  }
}

// The input of hidden unit j's ReLU.
inline float time_hidden(const TimeMlp& mlp, int j, const TimeFeatureBlock& f, int64_t i) {
  const float* w = mlp.w1 + j * kTimeFeatures;
  float h = fma(w[0], f.x[i], mlp.b1[j]);
  h = fma(w[1], f.root[i], h);
  h = fma(w[2], f.square[i], h);
  return fma(w[3], f.log[i], h);
}

inline void time_similarity(const TimeMlp& mlp, const TimeFeatureBlock& f, int64_t n, float* s) {
  for (int64_t i = 0; i < n; ++i) s[i] = *mlp.b2;
  for (int j = 0; j < mlp.hidden; ++j) {
    const float w2 = mlp.w2[j];
    for (int64_t i = 0; i < n; ++i) {
      const float h = time_hidden(mlp, j, f, i);
      s[i] = fma(w2, h <= 0.0f ? 0.0f : h, s[i]);  // NaN passes, as through torch's relu
    }
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
