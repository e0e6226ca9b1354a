// SPDX-License-Identifier: Apache-2.0
#include "time_term.h"

#include <numeric>

namespace longclock {

std::vector<float> time_table(const TimeMlp& mlp, int64_t period, int64_t evaluations) {
  constexpr int64_t kLargest = int64_t{1} << 20;  // 4 MB: what second-level caches hold
  const int64_t size = period / 2 + 1;
  if (size > kLargest || evaluations < 2 * size) return {};
  std::vector<int32_t> deltas(static_cast<size_t>(size));
  std::iota(deltas.begin(), deltas.end(), 0);
  std::vector<float> table(static_cast<size_t>(size));
  const TimeSimilarityParams params{{deltas.data(), false}, size, mlp, table.data()};
  parallel_elements(size,
                    [&](int64_t begin, int64_t end) { time_similarity_cpu(params, begin, end); });
  return table;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeMlpArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count) {
  const TimeMlp& mlp = arguments.mlp;
  const int64_t chunks = time_similarity_backward_chunks(count);
  std::vector<double> partial(static_cast<size_t>(chunks * time_mlp_size(mlp.hidden)));
  const TimeMlpGradients out(arguments);
  const TimeSimilarityBackwardParams params{delta, grad, count, mlp, partial.data(), out.view()};
  parallel_tasks(chunks, count * 16, [&](int64_t begin, int64_t end) {
    time_similarity_backward_cpu(params, begin, end);
  });
  time_similarity_backward_reduce_cpu(params);
  return out.tensors;
}

}  // namespace longclock
