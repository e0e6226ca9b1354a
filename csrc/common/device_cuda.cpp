// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include "cuda.h"

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

std::string device_of(const Tensor& tensor) {
  return tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : "another device";
}

}  // namespace

CudaStream current_cuda_stream(int32_t device_index) {
  static const CurrentStream current_stream = find_current_stream();
  check(current_stream != nullptr,
        "longclock: PyTorch's current CUDA stream was not found; a PyTorch from 2.10 on with CUDA "
        "is needed for CUDA tensors");
  void* stream = nullptr;
  check(current_stream(device_index, &stream) == 0,
        "longclock: PyTorch did not give its current CUDA stream of device ", device_index);
  return static_cast<CudaStream>(stream);
}

CudaCall::CudaCall(const char* op, const char* argument, const Tensor& tensor)
    : op_(op),
      argument_(argument),
      device_index_(tensor.get_device_index()),
      guard_(device_index_),
      stream_(current_cuda_stream(device_index_)) {}

void CudaCall::check_device(const char* argument, const Tensor& tensor) const {
  check(tensor.is_cuda() && tensor.get_device_index() == device_index_, op_, ": ", argument,
        " must be on the device of ", argument_, ", cuda:", device_index_, ", got ",
        device_of(tensor), "; move it there with .to()");
}

void CudaCall::check_launch(int error) const {
  check(error == 0, op_, ": CUDA error ", error, ": ", cuda_error_text(error));
}

}  // namespace longclock
