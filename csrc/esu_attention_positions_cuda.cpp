// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "esu_attention_call.h"
#include "search/search_cuda.h"

namespace longclock {
namespace {

const LayoutArguments& on_one_device(const CudaCall& call, const LayoutArguments& a) {
  LONGCLOCK_ESU_LAYOUT(LONGCLOCK_CHECK_DEVICE)
  return a;
}

std::tuple<Tensor, Tensor> esu_attention_positions(LONGCLOCK_ESU_LAYOUT(LONGCLOCK_PARAMETER)
                                                       const Tensor& found) {
  constexpr const char* op = "esu_attention";  // what users call
  CudaCall call(op, "found", found);
  const EsuPositionsInputs in(op, on_one_device(call, LONGCLOCK_LAYOUT_ARGUMENTS), found);
  call.reads(in.found);
  announce_layout(call, in);
  const Tensor positions = output(call, in.found, {in.query_count, in.k}, ScalarType::Long);
  const Tensor times = output(call, in.found, {in.query_count}, ScalarType::Long);
  const DeviceEsuPositionsParams params{layout_params(in),
                                        static_cast<const int64_t*>(in.found.const_data_ptr()),
                                        in.k, data<int64_t>(positions), data<int64_t>(times)};
  call.check_launch(launch_esu_positions(params, call.stream()));
  return {positions, times};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CUDA_KEY, m) {
  m.impl("esu_attention_positions", TORCH_BOX(&esu_attention_positions));
}

}  // namespace longclock
