// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "../../kernels/common/cuda.h"
#include "checks.h"
#include "dispatch.h"

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
  // What the kernels of the call may touch; to a GPU all memory is the same.
  void reads(const Tensor& tensor);
  void writes(const Tensor& tensor);  // of which nothing is written yet
  // What a launcher returned.
  void check_launch(int error) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace longclock
