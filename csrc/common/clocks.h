// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tuple>

#include "common/checks.h"

namespace longclock {

// The gradient of w1, b1, w2, b2 from that of s, [count], at the deltas of every clock, [C, count].
std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeTermArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count);

}  // namespace longclock
