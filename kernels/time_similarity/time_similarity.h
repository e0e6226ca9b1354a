// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "../common/cuda.h"
#include "../common/dtype.h"
#include "../common/simd_level.h"

namespace longclock {

constexpr int kTimeFeatures = 4;
constexpr int kMaxTimeHidden = 64;

// s(x) = w2 . relu(w1 phi(x) + b1) + b2, phi(x) = [x, sqrt(x), x^2, log(x + 1)], x = delta / unit.
struct TimeMlp {
  const float* w1;  // [hidden, 4]
  const float* b1;  // [hidden]
  const float* w2;  // [hidden]
  const float* b2;  // []
  int hidden;       // 1..64
  double unit;      // seconds
};

// Parameters of the MLP, or a gradient of them, side by side: w1, b1, w2, b2.
LONGCLOCK_INLINE constexpr int64_t time_mlp_size(int hidden) {
  return int64_t{hidden} * (kTimeFeatures + 2) + 1;
}

struct TimeFeaturesParams {
  IntArray delta;  // [count], seconds
  int64_t count;
  double unit;
  float* out;  // [count, 4]
};

struct TimeSimilarityParams {
  IntArray delta;  // [count], seconds
  int64_t count;
  TimeMlp mlp;
  float* out;  // [count]
};

// Where the gradient of each parameter goes.
struct TimeMlpGradient {
  float* w1;  // [hidden, 4]
  float* b1;  // [hidden]
  float* w2;  // [hidden]
  float* b2;  // []
};

// The gradient of the MLP from that of s, summed over all elements. Deterministic: elements are
// cut into chunks of a fixed size, each summed on its own, and the chunks are added in order.
struct TimeSimilarityBackwardParams {
  IntArray delta;     // [count], seconds
  const float* grad;  // [count]; an exact 0 contributes nothing
  int64_t count;
  TimeMlp mlp;
  double* partial;  // [chunks, time_mlp_size(hidden)]
  TimeMlpGradient out;
};

// Elements that are summed on their own: on the CPU, and by a block of a device.
constexpr int64_t kTimeSimilarityChunk = 8192;
constexpr int64_t kTimeSimilarityDeviceChunk = 1024;
LONGCLOCK_INLINE constexpr int64_t time_similarity_backward_chunks(int64_t count) {
  return (count + kTimeSimilarityChunk - 1) / kTimeSimilarityChunk;
}
LONGCLOCK_INLINE constexpr int64_t time_similarity_backward_device_chunks(int64_t count) {
  return (count + kTimeSimilarityDeviceChunk - 1) / kTimeSimilarityDeviceChunk;
}

LONGCLOCK_DECLARE_LEVELS(void time_features(const TimeFeaturesParams&, int64_t begin, int64_t end);
                         void time_similarity(const TimeSimilarityParams&, int64_t begin,
                                              int64_t end);
                         void time_similarity_backward(const TimeSimilarityBackwardParams&,
                                                       int64_t chunk_begin, int64_t chunk_end))

// Elements [begin, end).
void time_features_cpu(const TimeFeaturesParams& params, int64_t begin, int64_t end);
void time_similarity_cpu(const TimeSimilarityParams& params, int64_t begin, int64_t end);
// Chunks [chunk_begin, chunk_end) into `partial`; then, once all are there, the sum into `out`.
void time_similarity_backward_cpu(const TimeSimilarityBackwardParams& params, int64_t chunk_begin,
                                  int64_t chunk_end);
void time_similarity_backward_reduce_cpu(const TimeSimilarityBackwardParams& params);

// All elements, on the device of the stream. Each returns a cudaError_t: 0 is success. Pointers are
// the device's; the launchers allocate nothing and wait for nothing.
int launch_time_features(const TimeFeaturesParams& params, CudaStream stream);
int launch_time_similarity(const TimeSimilarityParams& params, CudaStream stream);
int launch_time_similarity_backward(const TimeSimilarityBackwardParams& params, CudaStream stream);

}  // namespace longclock
