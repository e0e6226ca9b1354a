// SPDX-License-Identifier: Apache-2.0
#include "common/time_term.h"

#include "longclock/time_similarity/time_similarity.h"

namespace longclock {

std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeMlpArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count) {
  const TimeMlp& mlp = arguments.mlp;
  const int64_t parts = time_similarity_backward_parts(count), size = time_mlp_size(mlp.hidden);
  std::vector<double> partial(static_cast<size_t>(parts * size));
  const TimeMlpGradients out(arguments);
  const TimeSimilarityBackwardParams params{delta, grad, count, mlp, partial.data(), out.view()};
  parallel_tasks(parts, count * 16, [&](int64_t begin, int64_t end) {
    time_similarity_backward_cpu(params, begin, end);
  });
  time_similarity_backward_reduce_cpu(params, 0, size);
  return out.tensors;
}

}  // namespace longclock
