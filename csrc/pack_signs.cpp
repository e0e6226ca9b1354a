// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "pack_signs_call.h"

namespace longclock {

PackSignsCall::PackSignsCall(const Tensor& x_in) {
  constexpr const char* op = "pack_signs";
  params.dtype = check_float(op, "x", x_in);
  check(x_in.dim() >= 1, op, ": x must have at least one dimension, got a scalar");
  x = as_contiguous(x_in);
  params.columns = x.size(x.dim() - 1);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = sign_words(params.columns);
  params.rows = 1;
  for (int64_t d = 0; d + 1 < x.dim(); ++d) params.rows *= x.size(d);
  out = make_empty(x, shape, ScalarType::Long);
  params.x = x.const_data_ptr();
  params.out = static_cast<uint64_t*>(out.mutable_data_ptr());
}

namespace {

Tensor pack_signs(const Tensor& x) {
  const PackSignsCall call(x);
  parallel_tasks(call.params.rows, call.x.numel(),
                 [&](int64_t begin, int64_t end) { pack_signs_cpu(call.params, begin, end); });
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) { m.def("pack_signs(Tensor x) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("pack_signs", TORCH_BOX(&pack_signs));
}

}  // namespace longclock
