// SPDX-License-Identifier: Apache-2.0
#include "circular_delta.h"

#include <torch/csrc/stable/library.h>

#include "common/parallel.h"

namespace longclock {

CircularDeltaCall::CircularDeltaCall(const Tensor& a_in, const Tensor& b_in, int64_t period) {
  constexpr const char* op = "circular_delta";
  check_int(op, "a", a_in);
  check_int(op, "b", b_in);
  check_period(op, period);
  check(shape_of(a_in) == shape_of(b_in), op, ": a and b must have one shape, got ", shape_of(a_in),
        " and ", shape_of(b_in), "; broadcast them first");
  const bool many = a_in.dim() > kCircularDeltaMaxDims;
  a = many ? torch::stable::contiguous(a_in) : a_in;
  b = many ? torch::stable::contiguous(b_in) : b_in;
  const bool wide = a.scalar_type() == ScalarType::Long || b.scalar_type() == ScalarType::Long;
  out = torch::stable::new_empty(a, a.sizes(), wide ? ScalarType::Long : ScalarType::Int);
  params.a = int_array(a);
  params.b = int_array(b);
  params.period = period;
  params.out = out.mutable_data_ptr();
  if (many || a.dim() == 0) {
    params.dims = 1;
    params.sizes[0] = a.numel();
    params.a_strides[0] = params.b_strides[0] = 1;
    return;
  }
  params.dims = static_cast<int>(a.dim());
  for (int d = 0; d < params.dims; ++d) {
    params.sizes[d] = a.size(d);
    params.a_strides[d] = a.stride(d);
    params.b_strides[d] = b.stride(d);
  }
}

namespace {

Tensor circular_delta(const Tensor& a, const Tensor& b, int64_t period) {
  const CircularDeltaCall call(a, b, period);
  if (call.out.numel() == 0) return call.out;
  parallel_tasks(circular_delta_rows(call.params), call.out.numel(),
                 [&](int64_t begin, int64_t end) { circular_delta_cpu(call.params, begin, end); });
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("circular_delta(Tensor a, Tensor b, int period) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, CPU, m) {
  m.impl("circular_delta", TORCH_BOX(&circular_delta));
}

}  // namespace longclock
