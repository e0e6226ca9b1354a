// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/checks.h"
#include "longclock/circular_delta/circular_delta.h"

namespace longclock {

// The arguments of circular_delta, checked, and its output. Holds what the pointers point to.
struct CircularDeltaCall {
  Tensor a, b, out;
  CircularDeltaParams params{};
  CircularDeltaCall(const Tensor& a, const Tensor& b, int64_t period);

 private:
  void merge_dimensions();
};

}  // namespace longclock
