// SPDX-License-Identifier: Apache-2.0
#include "time_term.h"

#include <cstring>
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
  const size_t size = static_cast<size_t>(time_mlp_size(mlp.hidden));
  std::vector<double> partial(static_cast<size_t>(chunks) * size);
  std::vector<float> gradient(size);
  const TimeSimilarityBackwardParams params{delta, grad,           count,
                                            mlp,   partial.data(), gradient.data()};
  parallel_tasks(chunks, count * 16, [&](int64_t begin, int64_t end) {
    time_similarity_backward_cpu(params, begin, end);
  });
  time_similarity_backward_reduce_cpu(params);
  const float* from = gradient.data();
  const auto next = [&](const Tensor& like) {
    Tensor out = torch::stable::new_empty(like, like.sizes());
    std::memcpy(out.mutable_data_ptr(), from, static_cast<size_t>(like.numel()) * sizeof(float));
    from += like.numel();
    return out;
  };
  Tensor w1 = next(arguments.w1), b1 = next(arguments.b1), w2 = next(arguments.w2),
         b2 = next(arguments.b2);
  return {w1, b1, w2, b2};
}

}  // namespace longclock
