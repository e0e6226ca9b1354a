// SPDX-License-Identifier: Apache-2.0
#include "longclock/time_similarity/time_similarity.h"

namespace longclock {
namespace {

// The place of the i-th of all parameters: w1, b1, w2, b2.
float* gradient_at(const TimeMlpGradient& out, int hidden, int64_t i) {
  const int64_t b1 = int64_t{hidden} * kTimeFeatures, w2 = b1 + hidden, b2 = w2 + hidden;
  return i < b1 ? out.w1 + i : i < w2 ? out.b1 + (i - b1) : i < b2 ? out.w2 + (i - w2) : out.b2;
}

}  // namespace

void time_features_cpu(const TimeFeaturesParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(time_features(params, begin, end));
}

void time_similarity_cpu(const TimeSimilarityParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(time_similarity(params, begin, end));
}

void time_similarity_backward_cpu(const TimeSimilarityBackwardParams& params, int64_t part_begin,
                                  int64_t part_end) {
  LONGCLOCK_CALL_LEVEL(time_similarity_backward(params, part_begin, part_end));
}

void time_similarity_backward_reduce_cpu(const TimeSimilarityBackwardParams& params) {
  const int64_t size = time_mlp_size(params.mlp.hidden);
  const int64_t parts = time_similarity_backward_parts(params.count);
  for (int64_t i = 0; i < size; ++i) {
    double sum = 0.0;
    for (int64_t part = 0; part < parts; ++part) sum += params.partial[part * size + i];
    *gradient_at(params.out, params.mlp.hidden, i) = static_cast<float>(sum);
  }
}

}  // namespace longclock
