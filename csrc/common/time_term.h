// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tuple>

#include "common/checks.h"
#include "common/parallel.h"

namespace longclock {

// The gradient of w1, b1, w2, b2 from that of s at each delta, both [count].
std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeMlpArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count);

}  // namespace longclock
