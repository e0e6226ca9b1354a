// SPDX-License-Identifier: Apache-2.0
#include "longclock/time_similarity/time_similarity.h"

#include <torch/csrc/stable/library.h>

#include "common/checks.h"
#include "common/clocks.h"
#include "common/dispatch.h"
#include "common/parallel.h"

namespace longclock {
namespace {

Tensor time_features(const Tensor& delta_in, double unit, bool elapsed) {
  check_int("time_features", "delta", delta_in);
  check_unit("time_features", unit);
  const Tensor delta = as_contiguous(delta_in);
  std::vector<int64_t> shape(delta.sizes().begin(), delta.sizes().end());
  shape.push_back(kTimeFeatures);
  Tensor out = make_empty(delta, shape, ScalarType::Float);
  const TimeFeaturesParams params{int_array(delta), delta.numel(), unit,
                                  static_cast<float*>(out.mutable_data_ptr()), elapsed};
  parallel_elements(params.count,
                    [&](int64_t begin, int64_t end) { time_features_cpu(params, begin, end); });
  return out;
}

Tensor time_similarity(const Tensor& delta_in, const Tensor& w1, const Tensor& b1, const Tensor& w2,
                       const Tensor& b2, double unit, bool elapsed) {
  check_int("time_similarity", "delta", delta_in);
  const TimeTermArguments arguments("time_similarity", w1, b1, w2, b2, unit, elapsed);
  const Tensor delta = as_contiguous(delta_in);
  Tensor out = make_empty(delta, delta.sizes(), ScalarType::Float);
  const TimeSimilarityParams params{int_array(delta), delta.numel(), arguments.time.clock[0].mlp,
                                    static_cast<float*>(out.mutable_data_ptr())};
  parallel_elements(params.count,
                    [&](int64_t begin, int64_t end) { time_similarity_cpu(params, begin, end); });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> time_similarity_backward(
    const Tensor& grad_in, const Tensor& delta_in, const Tensor& w1, const Tensor& b1,
    const Tensor& w2, const Tensor& b2, double unit, bool elapsed) {
  constexpr const char* op = "time_similarity_backward";
  check_int(op, "delta", delta_in);
  const TimeTermArguments arguments(op, w1, b1, w2, b2, unit, elapsed);
  check_defined(op, "grad", grad_in);
  check(grad_in.scalar_type() == ScalarType::Float && same_shape(grad_in, delta_in), op,
        ": grad must be float32 of delta's shape ", shape_of(delta_in), ", got ", dtype_of(grad_in),
        " ", shape_of(grad_in));
  const Tensor grad = as_contiguous(grad_in);
  const Tensor delta = as_contiguous(delta_in);
  return time_mlp_gradient(arguments, int_array(delta),
                           static_cast<const float*>(grad.const_data_ptr()), delta.numel());
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("time_features(Tensor delta, float unit, bool elapsed) -> Tensor");
  m.def(
      "time_similarity(Tensor delta, Tensor w1, Tensor b1, Tensor w2, Tensor b2, float unit, bool "
      "elapsed) -> Tensor");
  m.def(
      "time_similarity_backward(Tensor grad, Tensor delta, Tensor w1, Tensor b1, Tensor w2, "
      "Tensor b2, float unit, bool elapsed) -> (Tensor w1, Tensor b1, Tensor w2, Tensor b2)");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("time_features", TORCH_BOX(&time_features));
  m.impl("time_similarity", TORCH_BOX(&time_similarity));
  m.impl("time_similarity_backward", TORCH_BOX(&time_similarity_backward));
}

}  // namespace longclock
