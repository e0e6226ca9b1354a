// SPDX-License-Identifier: Apache-2.0
#include "common/clocks.h"

#include "common/parallel.h"
#include "longclock/time_similarity/time_similarity.h"

namespace longclock {

std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeTermArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count) {
  const TimeTerm& time = arguments.time;
  const int hidden = time.clock[0].mlp.hidden;
  const int64_t parts = time_similarity_backward_parts(count);
  std::vector<double> partial(static_cast<size_t>(parts * time_mlp_size(hidden)));
  const TimeMlpGradients out(arguments);
  for (int c = 0; c < time.clocks; ++c) {
    const TimeSimilarityBackwardParams params{
        delta.from(c * count), grad, count, time.clock[c].mlp, partial.data(), out.view(c, hidden)};
    parallel_tasks(parts, count * 16, [&](int64_t begin, int64_t end) {
      time_similarity_backward_cpu(params, begin, end);
    });
    time_similarity_backward_reduce_cpu(params, 0, time_mlp_size(hidden));
  }
  return out.tensors;
}

}  // namespace longclock
