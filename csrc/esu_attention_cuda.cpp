// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "common/cuda_call.h"
#include "esu_attention_call.h"
#include "longclock/common/device.h"
#include "search/features_cuda.h"

namespace longclock {
namespace {

const EsuArguments& on_one_device(const CudaCall& call, const EsuArguments& a) {
  LONGCLOCK_ESU_ROWS(LONGCLOCK_CHECK_DEVICE)
  LONGCLOCK_CHECK_DEVICE(OptionalTensor, valid)
  check_feature_devices(call, kEsuWords, a.features, a.feature_ids);
  return a;
}

// The arguments as the CUDA kernels take them, announced to the call.
struct CudaAttention {
  CudaCall call;
  EsuInputs inputs;
  Tensor u;
  DeviceEsuAttentionParams params;

  CudaAttention(const char* op, const EsuArguments& a)
      : call(op, "u", a.u), inputs(op, on_one_device(call, a)), u(input(call, "u", a.u)) {
    read_mlp(call, inputs.mlp);
    for (const Tensor* tensor : {&inputs.z, &inputs.z_time, &inputs.query_time}) {
      call.reads(*tensor);
    }
    if (a.ids) call.reads(inputs.ids);
    if (a.positions) call.reads(inputs.positions);
    if (a.valid) call.reads(inputs.valid);
    announce_features(call, inputs.features);
    params = {inputs.params,
              inputs.queries,
              u.const_data_ptr(),
              u.scalar_type() == ScalarType::Float,
              a.ids ? inputs.z.size(0) : 0,
              inputs.behaviour_count,
              device_checks(),
              nullptr};
  }

  int64_t dim() const { return params.dim; }

  // Memory for the kernels alone; nothing where `size` is 0.
  Tensor scratch(int64_t size) { return output(call, u, {size}, ScalarType::Float); }
};

std::tuple<Tensor, Tensor> esu_attention(LONGCLOCK_ESU(LONGCLOCK_PARAMETER) bool /*sparse_grad*/) {
  CudaAttention a("esu_attention", LONGCLOCK_ESU_ARGUMENTS);
  DeviceEsuAttentionParams& p = a.params;
  const Tensor context = output(a.call, a.u, {p.queries, p.heads, p.width}, ScalarType::Float);
  const Tensor softmax = output(a.call, a.u, {p.queries, p.heads, 2}, ScalarType::Float);
  const Tensor partial = a.scratch(esu_partial_size(p.queries, p.heads, p.k, p.width));
  p.context = data<float>(context);
  p.softmax = data<float>(softmax);
  p.partial = data<float>(partial);
  a.call.check_launch(launch_esu_attention(p, a.call.stream()));
  return {context, softmax};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> esu_attention_backward(
    const Tensor& grad_in, LONGCLOCK_ESU(LONGCLOCK_PARAMETER) const Tensor& context_in,
    const Tensor& softmax_in, bool need_u, bool need_z, bool need_mlp) {
  constexpr const char* op = "esu_attention_backward";
  CudaAttention a(op, LONGCLOCK_ESU_ARGUMENTS);
  for (const auto& [name, tensor] :
       {std::pair<const char*, const Tensor&>{"grad", grad_in},
        std::pair<const char*, const Tensor&>{"context", context_in},
        std::pair<const char*, const Tensor&>{"softmax", softmax_in}}) {
    a.call.check_device(name, tensor);
  }
  const EsuBackwardArguments saved(op, a.inputs, grad_in, context_in, softmax_in);
  for (const Tensor* tensor : {&saved.grad, &saved.context, &saved.softmax}) {
    a.call.reads(*tensor);
  }
  a.params.context = static_cast<float*>(saved.context.data_ptr());  // read only
  a.params.softmax = static_cast<float*>(saved.softmax.data_ptr());
  const DeviceEsuAttentionParams& p = a.params;
  const int64_t queries = p.queries, heads = p.heads, k = p.k, dim = a.dim(), pairs = queries * k;

  const auto none = [](const Tensor& like) { return make_empty(like, {0}); };
  Tensor u_grad = none(u), z_grad = none(z), w1_grad = none(w1), b1_grad = none(b1),
         w2_grad = none(w2), b2_grad = none(b2);
  DeviceEsuAttentionBackwardParams params{};
  params.forward = p;
  params.grad = static_cast<const float*>(saved.grad.const_data_ptr());
  Tensor u_partial, weights, s_grad, s_delta;
  if (need_u) {
    u_grad = output(a.call, a.u, {queries, heads, dim}, a.u.scalar_type());
    u_partial = a.scratch(esu_u_partial_size(queries, heads, k, dim));
    params.u_grad = u_grad.mutable_data_ptr();
    params.u_partial = data<float>(u_partial);
  }
  if (need_z) {
    z_grad = output(a.call, z, {queries, k, dim}, z.scalar_type());
    params.z_grad = z_grad.mutable_data_ptr();
  }
  if (need_mlp) {
    s_grad = a.scratch(pairs);
    s_delta = output(a.call, a.u, {p.behaviours.time.clocks, pairs}, ScalarType::Int);
    params.s_grad = data<float>(s_grad);
    params.s_delta = data<int32_t>(s_delta);
  }
  if (need_z || need_mlp) {
    weights = a.scratch(esu_weights_size(queries, heads, k));
    params.weights = data<float>(weights);
  }
  a.call.check_launch(launch_esu_attention_backward(params, a.call.stream()));
  if (need_mlp) {
    std::tie(w1_grad, b1_grad, w2_grad, b2_grad) =
        time_mlp_gradient(a.call, a.inputs.mlp, s_delta, s_grad);
  }
  return {u_grad, z_grad, w1_grad, b1_grad, w2_grad, b2_grad};
}

Tensor esu_attention_table_grad(const Tensor& z_grad, const Tensor& ids,
                                const OptionalTensor& positions, const OptionalTensor& valid,
                                int64_t table_rows) {
  constexpr const char* op = "esu_attention_table_grad";
  CudaCall call(op, "z_grad", z_grad);
  call.check_device("ids", ids);
  call.check_device("positions", positions);
  call.check_device("valid", valid);
  EsuTableGradArguments a(op, z_grad, ids, positions, valid, table_rows);
  EsuTableGradParams& p = a.params;
  check(table_rows <= 0xffffffff, op, ": table_rows must be less than 2^32 on CUDA, got ",
        table_rows);
  check(p.count <= 0xffffffff, op, ": z_grad must have fewer than 2^32 rows on CUDA, got ",
        shape_of(z_grad), "; call with fewer queries at a time");
  call.reads(a.z_grad);
  call.reads(a.ids);
  if (positions) call.reads(a.positions);
  if (valid) call.reads(a.valid);
  const Tensor table_grad = output(call, a.z_grad, {table_rows, p.dim}, a.z_grad.scalar_type());
  p.table_grad = table_grad.mutable_data_ptr();
  int64_t bytes = 0;
  call.check_launch(esu_table_grad_bytes(p, &bytes));
  const Tensor workspace = output(call, a.z_grad, {bytes}, ScalarType::Byte);
  call.check_launch(launch_esu_table_grad(p, workspace.mutable_data_ptr(), call.stream()));
  return table_grad;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("esu_attention", TORCH_BOX(&esu_attention));
  m.impl("esu_attention_backward", TORCH_BOX(&esu_attention_backward));
  m.impl("esu_attention_table_grad", TORCH_BOX(&esu_attention_table_grad));
}

}  // namespace longclock
