// SPDX-License-Identifier: Apache-2.0
// The time features and s() of one behaviour, on the device. Every kernel computes them with these
// functions, so that s has the same bits wherever it is needed.
#pragma once

#include <cuda_runtime.h>

#include "time_similarity.h"

namespace longclock {

struct TimePhi {
  float x, root, square, log;
};

__device__ __forceinline__ TimePhi time_phi(int64_t delta, double per_unit) {
  const float x = static_cast<float>(static_cast<double>(delta) * per_unit);
  return {x, sqrtf(x), x * x, log1pf(x)};
}

// The MLP in shared memory, a hidden unit in two loads.
struct SharedTimeMlp {
  float4 w1[kMaxTimeHidden];
  float2 b1_w2[kMaxTimeHidden];
  float b2;
  int hidden;
};

// By all threads of a block; the caller puts a barrier behind it.
__device__ __forceinline__ void load_time_mlp(const TimeMlp& mlp, SharedTimeMlp* shared) {
  for (int i = threadIdx.x; i < mlp.hidden * kTimeFeatures; i += blockDim.x) {
    reinterpret_cast<float*>(shared->w1)[i] = mlp.w1[i];
  }
  for (int i = threadIdx.x; i < mlp.hidden; i += blockDim.x) {
    shared->b1_w2[i] = make_float2(mlp.b1[i], mlp.w2[i]);
  }
  if (threadIdx.x == 0) {
    shared->b2 = *mlp.b2;
    shared->hidden = mlp.hidden;
  }
}

// The input of a hidden unit's ReLU.
__device__ __forceinline__ float time_hidden(const float4& w1, float b1, const TimePhi& phi) {
  float h = fmaf(w1.x, phi.x, b1);
  h = fmaf(w1.y, phi.root, h);
  h = fmaf(w1.z, phi.square, h);
  return fmaf(w1.w, phi.log, h);
}

// NaN passes, as through torch's relu.
__device__ __forceinline__ float time_relu(float h) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float positive;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(positive) : "f"(h));
  return positive;
#else
  return h <= 0.0f ? 0.0f : h;
#endif
}

__device__ __forceinline__ float time_similarity(const SharedTimeMlp& mlp, const TimePhi& phi) {
  float s = mlp.b2;
#pragma unroll 2
  for (int j = 0; j < mlp.hidden; ++j) {
    const float2 b1_w2 = mlp.b1_w2[j];
    s = fmaf(b1_w2.y, time_relu(time_hidden(mlp.w1[j], b1_w2.x, phi)), s);
  }
  return s;
}

}  // namespace longclock
