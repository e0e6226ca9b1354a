// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/cuda.h"
#include "longclock/common/dtype.h"
#include "longclock/time/time_mlp.h"

namespace longclock {

// Of the time elapsed, any seconds may be given: they are kept as elapsed_delta() keeps them.
struct TimeFeaturesParams {
  IntArray delta;  // [count], seconds
  int64_t count;
  double unit;
  float* out;  // [count, 4]
  bool elapsed = false;
};

struct TimeSimilarityParams {
  IntArray delta;  // [count], seconds
  int64_t count;
  TimeMlp mlp;
  float* out;  // [count]
};

// The gradient of the MLP from that of s, summed over all elements. Deterministic: elements are
// cut into parts of a fixed size, each summed on its own, and the parts are added in order.
struct TimeSimilarityBackwardParams {
  IntArray delta;     // [count], seconds
  const float* grad;  // [count]; an exact 0 contributes nothing
  int64_t count;
  TimeMlp mlp;
  double* partial;  // [parts, time_mlp_size(hidden)]
  TimeMlpGradient out;
};

// Elements that are summed on their own: on the CPU, and by a block of a device.
constexpr int64_t kTimeSimilarityPart = 8192;
constexpr int64_t kTimeSimilarityDevicePart = 1024;
LONGCLOCK_INLINE constexpr int64_t time_similarity_backward_parts(int64_t count) {
  return (count + kTimeSimilarityPart - 1) / kTimeSimilarityPart;
}
LONGCLOCK_INLINE constexpr int64_t time_similarity_backward_device_parts(int64_t count) {
  return (count + kTimeSimilarityDevicePart - 1) / kTimeSimilarityDevicePart;
}

// Elements [begin, end).
void time_features_cpu(const TimeFeaturesParams& params, int64_t begin, int64_t end);
void time_similarity_cpu(const TimeSimilarityParams& params, int64_t begin, int64_t end);
// Parts [begin, end) into `partial`.
void time_similarity_backward_cpu(const TimeSimilarityBackwardParams& params, int64_t begin,
                                  int64_t end);
// Once all parts are there: parameters [begin, end) of time_mlp_size(hidden) into `out`.
void time_similarity_backward_reduce_cpu(const TimeSimilarityBackwardParams& params, int64_t begin,
                                         int64_t end);

// All elements, on the device of the stream. Each returns a cudaError_t: 0 is success. Pointers are
// the device's; the launchers allocate nothing and wait for nothing.
int launch_time_features(const TimeFeaturesParams& params, CudaStream stream);
int launch_time_similarity(const TimeSimilarityParams& params, CudaStream stream);
int launch_time_similarity_backward(const TimeSimilarityBackwardParams& params, CudaStream stream);

}  // namespace longclock
