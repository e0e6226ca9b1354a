// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tuple>
#include <vector>

#include "checks.h"
#include "parallel.h"

namespace longclock {

// s of every delta from 0 to period / 2, where `evaluations` of s are enough to pay for it; else
// empty. Entries have the bits that the kernels would compute on the spot.
std::vector<float> time_table(const TimeMlp& mlp, int64_t period, int64_t evaluations);

// The gradient of w1, b1, w2, b2 from that of s at each delta, both [count].
std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeMlpArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count);

}  // namespace longclock
