// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/inline.h"

namespace longclock {

constexpr int kTimeFeatures = 4;
constexpr int kMaxTimeHidden = 64;  // of all clocks together
constexpr int kMaxClocks = 4;

// s(x) = w2 . relu(w1 phi(x) + b1) + b2, phi(x) = [x, sqrt(x), x^2, log(x + 1)], x = delta / unit;
// of the time elapsed x = log2(1 + delta / unit).
struct TimeMlp {
  const float* w1;  // [hidden, 4]
  const float* b1;  // [hidden]
  const float* w2;  // [hidden]
  const float* b2;  // []
  int hidden;       // 1..64
  double unit;      // seconds
  bool elapsed = false;
};

// Parameters of the MLP, or a gradient of them, side by side: w1, b1, w2, b2.
LONGCLOCK_INLINE constexpr int64_t time_mlp_size(int hidden) {
  return int64_t{hidden} * (kTimeFeatures + 2) + 1;
}

// Where the gradient of each parameter goes.
struct TimeMlpGradient {
  float* w1;  // [hidden, 4]
  float* b1;  // [hidden]
  float* w2;  // [hidden]
  float* b2;  // []
};

}  // namespace longclock
