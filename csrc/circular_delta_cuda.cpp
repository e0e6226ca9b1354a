// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "circular_delta_call.h"
#include "common/cuda_call.h"

namespace longclock {
namespace {

Tensor circular_delta(const Tensor& a, const Tensor& b, int64_t period) {
  check_defined("circular_delta", "a", a);
  const bool a_leads = a.is_cuda();
  CudaCall cuda("circular_delta", a_leads ? "a" : "b", a_leads ? a : b);
  cuda.check_device("a", a);
  cuda.check_device("b", b);
  const CircularDeltaCall call(a, b, period);
  cuda.reads(call.a);
  cuda.reads(call.b);
  cuda.writes(call.out);
  cuda.check_launch(launch_circular_delta(call.params, cuda.stream()));
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("circular_delta", TORCH_BOX(&circular_delta));
}

}  // namespace longclock
