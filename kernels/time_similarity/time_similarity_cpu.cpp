// SPDX-License-Identifier: Apache-2.0
#include "time_similarity.h"

namespace longclock {

void time_features_cpu(const TimeFeaturesParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(time_features(params, begin, end));
}

void time_similarity_cpu(const TimeSimilarityParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(time_similarity(params, begin, end));
}

void time_similarity_backward_cpu(const TimeSimilarityBackwardParams& params, int64_t chunk_begin,
                                  int64_t chunk_end) {
  LONGCLOCK_CALL_LEVEL(time_similarity_backward(params, chunk_begin, chunk_end));
}

void time_similarity_backward_reduce_cpu(const TimeSimilarityBackwardParams& params) {
  const int64_t size = time_mlp_size(params.mlp.hidden);
  const int64_t chunks = time_similarity_backward_chunks(params.count);
  for (int64_t i = 0; i < size; ++i) {
    double sum = 0.0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += params.partial[chunk * size + i];
    params.out[i] = static_cast<float>(sum);
  }
}

}  // namespace longclock
