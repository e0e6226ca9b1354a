// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "circular_delta_call.h"
#include "common/dispatch.h"
#include "common/parallel.h"

namespace longclock {

CircularDeltaCall::CircularDeltaCall(const Tensor& a_in, const Tensor& b_in, int64_t period) {
  constexpr const char* op = "circular_delta";
  check_int(op, "a", a_in);
  check_int(op, "b", b_in);
  check_period(op, period);
  check(same_shape(a_in, b_in), op, ": a and b must have one shape, got ", shape_of(a_in), " and ",
        shape_of(b_in), "; broadcast them first");
  a = a_in;
  b = b_in;
  const bool wide = a.scalar_type() == ScalarType::Long || b.scalar_type() == ScalarType::Long;
  out = make_empty(a, a.sizes(), wide ? ScalarType::Long : ScalarType::Int);
  merge_dimensions();
  if (params.dims > kCircularDeltaMaxDims) {
    a = as_contiguous(a_in);
    b = as_contiguous(b_in);
    merge_dimensions();
  }
  params.a = int_array(a);
  params.b = int_array(b);
  params.period = period;
  params.out = out.mutable_data_ptr();
}

// Leaves out dimensions of size 1 and merges those that both inputs walk with one stride, so that
// contiguous and evenly strided tensors have one dimension. Stops counting past what fits.
void CircularDeltaCall::merge_dimensions() {
  CircularDeltaParams& p = params;
  p.dims = 0;
  for (int64_t d = 0; d < a.dim() && p.dims <= kCircularDeltaMaxDims; ++d) {
    const int64_t size = a.size(d), a_stride = a.stride(d), b_stride = b.stride(d);
    if (size == 1) continue;
    const int last = p.dims - 1;
    if (p.dims > 0 && p.a_strides[last] == a_stride * size &&
        p.b_strides[last] == b_stride * size) {
      p.sizes[last] *= size;
      p.a_strides[last] = a_stride;
      p.b_strides[last] = b_stride;
      continue;
    }
    if (p.dims < kCircularDeltaMaxDims) {
      p.sizes[p.dims] = size;
      p.a_strides[p.dims] = a_stride;
      p.b_strides[p.dims] = b_stride;
    }
    ++p.dims;
  }
  if (p.dims == 0) {
    p.dims = 1;
    p.sizes[0] = 1;
    p.a_strides[0] = p.b_strides[0] = 0;
  }
}

namespace {

Tensor circular_delta(const Tensor& a, const Tensor& b, int64_t period) {
  const CircularDeltaCall call(a, b, period);
  check_seconds("circular_delta", "a", a);
  check_seconds("circular_delta", "b", b);
  parallel_elements(call.out.numel(), [&](int64_t begin, int64_t end) {
    circular_delta_cpu(call.params, begin, end);
  });
  return call.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("circular_delta(Tensor a, Tensor b, int period) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("circular_delta", TORCH_BOX(&circular_delta));
}

}  // namespace longclock
