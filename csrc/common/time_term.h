// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tuple>
#include <vector>

#include "checks.h"
#include "parallel.h"

namespace longclock {

// parallel_tasks over single elements, in ranges that are worth a call.
template <class F>
void parallel_elements(int64_t count, const F& f) {
  constexpr int64_t kStep = 4096;
  parallel_tasks((count + kStep - 1) / kStep, count * 16, [&](int64_t begin, int64_t end) {
    f(begin * kStep, std::min(end * kStep, count));
  });
}

// s of every delta from 0 to period / 2, where `evaluations` of s are enough to pay for it; else
// empty. Entries have the bits that the kernels would compute on the spot.
std::vector<float> time_table(const TimeMlp& mlp, int64_t period, int64_t evaluations);

// The gradient of w1, b1, w2, b2 from that of s at each delta, both [count].
std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeMlpArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count);

}  // namespace longclock
