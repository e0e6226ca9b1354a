// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include "common/cuda_call.h"

namespace longclock {
namespace {

using CurrentStream = int (*)(int32_t device_index, void** stream);

// A CUDA tensor exists, so libtorch_cuda is loaded already.
CurrentStream find_current_stream() {
  void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
  void* symbol = library == nullptr ? dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream")
                                    : dlsym(library, "aoti_torch_get_current_cuda_stream");
  return reinterpret_cast<CurrentStream>(symbol);
}

// PyTorch's current stream of a device. libtorch_cuda is asked at run time: the library links to
// libtorch_cpu alone, so that it also loads where PyTorch has no CUDA.
CudaStream current_cuda_stream(int32_t device_index) {
  static const CurrentStream current_stream = find_current_stream();
  check<std::runtime_error>(
      current_stream != nullptr,
      "longclock: PyTorch's current CUDA stream was not found; a PyTorch from 2.10 on with CUDA "
      "is needed for CUDA tensors");
  void* stream = nullptr;
  check<std::runtime_error>(current_stream(device_index, &stream) == 0,
                            "longclock: PyTorch did not give its current CUDA stream of device ",
                            device_index);
  return static_cast<CudaStream>(stream);
}

std::string device_of(const Tensor& tensor) {
  return tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : "another device";
}

int32_t cuda_index(const char* op, const char* argument, const Tensor& tensor) {
  check_defined(op, argument, tensor);
  check(
      tensor.is_cuda(), op, ": ", argument,
      " must be on the device of the other arguments, CUDA, got a CPU tensor; move it with .to()");
  return tensor.get_device_index();
}

}  // namespace

struct CudaCall::State {
  const char* op;
  const char* argument;  // whose device is used
  int32_t device_index;
  torch::stable::accelerator::DeviceGuard guard;
  CudaStream stream;

  State(const char* op_in, const char* argument_in, const Tensor& tensor)
      : op(op_in),
        argument(argument_in),
        device_index(cuda_index(op, argument, tensor)),
        guard(device_index),
        stream(current_cuda_stream(device_index)) {}
};

CudaCall::CudaCall(const char* op, const char* argument, const Tensor& tensor)
    : state_(std::make_unique<State>(op, argument, tensor)) {}
CudaCall::~CudaCall() = default;

CudaStream CudaCall::stream() const { return state_->stream; }

void CudaCall::check_device(const char* argument, const Tensor& tensor) const {
  const State& s = *state_;
  check_defined(s.op, argument, tensor);
  check(tensor.is_cuda() && tensor.get_device_index() == s.device_index, s.op, ": ", argument,
        " must be on the device of ", s.argument, ", cuda:", s.device_index, ", got ",
        device_of(tensor), "; move it there with .to()");
}

void CudaCall::reads(const Tensor&) {}
void CudaCall::writes(const Tensor&) {}
void CudaCall::updates(const Tensor&) {}

void CudaCall::check_launch(int error) const {
  if (error == 0) return;
  check<std::runtime_error>(false, "longclock::", state_->op, " failed with CUDA error ", error,
                            ": ", cuda_error_text(error));
}

}  // namespace longclock
