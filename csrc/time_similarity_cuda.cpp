// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "common/checks.h"
#include "common/cuda_call.h"
#include "longclock/time_similarity/time_similarity.h"

namespace longclock {

std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(CudaCall& call,
                                                             const TimeTermArguments& arguments,
                                                             const Tensor& delta,
                                                             const Tensor& grad) {
  const TimeTerm& time = arguments.time;
  const int hidden = time.clock[0].mlp.hidden;
  const int64_t count = grad.numel(), parts = time_similarity_backward_device_parts(count);
  const Tensor partial =
      output(call, delta, {time.clocks, parts, time_mlp_size(hidden)}, ScalarType::Double);
  const TimeMlpGradients out(arguments);
  std::apply([&](const auto&... gradient) { (call.writes(gradient), ...); }, out.tensors);
  for (int c = 0; c < time.clocks; ++c) {
    const TimeSimilarityBackwardParams params{
        int_array(delta).from(c * count),
        static_cast<const float*>(grad.const_data_ptr()),
        count,
        time.clock[c].mlp,
        data<double>(partial) + c * parts * time_mlp_size(hidden),
        out.view(c, hidden)};
    call.check_launch(launch_time_similarity_backward(params, call.stream()));
  }
  return out.tensors;
}

namespace {

Tensor time_features(const Tensor& delta_in, double unit, bool elapsed) {
  constexpr const char* op = "time_features";
  check_int(op, "delta", delta_in);
  check_unit(op, unit);
  CudaCall call(op, "delta", delta_in);
  const Tensor delta = input(call, "delta", delta_in);
  std::vector<int64_t> shape(delta.sizes().begin(), delta.sizes().end());
  shape.push_back(kTimeFeatures);
  const Tensor out = output(call, delta, shape, ScalarType::Float);
  const TimeFeaturesParams params{int_array(delta), delta.numel(), unit, data<float>(out), elapsed};
  call.check_launch(launch_time_features(params, call.stream()));
  return out;
}

Tensor time_similarity(const Tensor& delta_in, const Tensor& w1, const Tensor& b1, const Tensor& w2,
                       const Tensor& b2, double unit, bool elapsed) {
  constexpr const char* op = "time_similarity";
  check_int(op, "delta", delta_in);
  CudaCall call(op, "delta", delta_in);
  const TimeTermArguments arguments(op, w1, b1, w2, b2, unit, elapsed);
  read_mlp(call, arguments);
  const Tensor delta = input(call, "delta", delta_in);
  const Tensor out = output(call, delta, delta.sizes(), ScalarType::Float);
  const TimeSimilarityParams params{int_array(delta), delta.numel(), arguments.time.clock[0].mlp,
                                    data<float>(out)};
  call.check_launch(launch_time_similarity(params, call.stream()));
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> time_similarity_backward(
    const Tensor& grad_in, const Tensor& delta_in, const Tensor& w1, const Tensor& b1,
    const Tensor& w2, const Tensor& b2, double unit, bool elapsed) {
  constexpr const char* op = "time_similarity_backward";
  check_int(op, "delta", delta_in);
  CudaCall call(op, "delta", delta_in);
  const TimeTermArguments arguments(op, w1, b1, w2, b2, unit, elapsed);
  read_mlp(call, arguments);
  check_defined(op, "grad", grad_in);
  check(grad_in.scalar_type() == ScalarType::Float && same_shape(grad_in, delta_in), op,
        ": grad must be float32 of delta's shape ", shape_of(delta_in), ", got ", dtype_of(grad_in),
        " ", shape_of(grad_in));
  const Tensor grad = input(call, "grad", grad_in);
  const Tensor delta = input(call, "delta", delta_in);
  return time_mlp_gradient(call, arguments, delta, grad);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("time_features", TORCH_BOX(&time_features));
  m.impl("time_similarity", TORCH_BOX(&time_similarity));
  m.impl("time_similarity_backward", TORCH_BOX(&time_similarity_backward));
}

}  // namespace longclock
