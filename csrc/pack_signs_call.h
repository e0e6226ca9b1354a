// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/checks.h"
#include "longclock/pack_signs/pack_signs.h"

namespace longclock {

// The arguments of pack_signs, checked, and its output. Holds what the pointers point to.
struct PackSignsCall {
  Tensor x, out;
  PackSignsParams params{};
  explicit PackSignsCall(const Tensor& x);
};

}  // namespace longclock
