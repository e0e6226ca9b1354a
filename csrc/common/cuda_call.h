// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "common/checks.h"
#include "common/dispatch.h"
#include "longclock/common/cuda.h"

namespace longclock {

// A call on the device of `tensor`, which must be CUDA: makes it current for its lifetime and takes
// PyTorch's stream. device_cuda.cpp implements it; tests/cuda_emulator has one for CPU tensors.
class CudaCall {
 public:
  CudaCall(const char* op, const char* argument, const Tensor& tensor);
  ~CudaCall();

  CudaStream stream() const;
  // The other arguments must be on the same device.
  void check_device(const char* argument, const Tensor& tensor) const;
  void check_device(const char* argument, const OptionalTensor& tensor) const {
    if (tensor) check_device(argument, *tensor);
  }
  void check_device(const char*, bool) const {}  // an argument that is no tensor
  // What the kernels of the call may touch; to a GPU all memory is the same.
  void reads(const Tensor& tensor);
  void writes(const Tensor& tensor);   // of which nothing is written yet
  void updates(const Tensor& tensor);  // which is written already
  // What a launcher returned.
  void check_launch(int error) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// For an argument list: each of the arguments `a` must be on the device of `call`. Devices are
// checked before anything is read, or copied.
#define LONGCLOCK_CHECK_DEVICE(type, name) call.check_device(#name, a.name);

// Contiguous, on the call's device, for its kernels to read.
inline Tensor input(CudaCall& call, const char* argument, const Tensor& tensor) {
  call.check_device(argument, tensor);
  Tensor out = as_contiguous(tensor);
  call.reads(out);
  return out;
}

// An input that may be missing; sets `array` where it is not.
inline Tensor input(CudaCall& call, const char* argument, const OptionalTensor& tensor,
                    IntArray* array) {
  if (!tensor) return Tensor();
  Tensor out = input(call, argument, *tensor);
  *array = int_array(out);
  return out;
}

// Uninitialised, for the call's kernels to write; on the device of `like`.
inline Tensor output(CudaCall& call, const Tensor& like, Sizes shape, ScalarType dtype) {
  Tensor out = make_empty(like, shape, dtype);
  call.writes(out);
  return out;
}

inline void read_mlp(CudaCall& call, const TimeTermArguments& mlp) {
  const std::pair<const char*, const Tensor*> tensors[] = {
      {"mlp w1", &mlp.w1}, {"mlp b1", &mlp.b1}, {"mlp w2", &mlp.w2}, {"mlp b2", &mlp.b2}};
  for (const auto& [name, tensor] : tensors) {
    call.check_device(name, *tensor);
    call.reads(*tensor);
  }
}

// The gradient of w1, b1, w2, b2 from that of s, float32 [count], at the deltas of every clock,
// int32 or int64 [C, count]; both announced to the call.
std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(CudaCall& call,
                                                             const TimeTermArguments& arguments,
                                                             const Tensor& delta,
                                                             const Tensor& grad);

template <class T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace longclock
