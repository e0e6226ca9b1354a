// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "common/cuda_call.h"
#include "pack_signs_call.h"

namespace longclock {
namespace {

Tensor pack_signs(const Tensor& x) {
  CudaCall cuda("pack_signs", "x", x);
  const PackSignsCall call(x);
  cuda.reads(call.x);
  cuda.writes(call.out);
  cuda.check_launch(launch_pack_signs(call.params, cuda.stream()));
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("pack_signs", TORCH_BOX(&pack_signs));
}

}  // namespace longclock
