// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "../../kernels/common/cuda.h"
#include "checks.h"

namespace longclock {

// PyTorch's current stream of a device. libtorch_cuda is asked at run time: the library links to
// libtorch_cpu alone, so that it also loads where PyTorch has no CUDA.
CudaStream current_cuda_stream(int32_t device_index);

// A call on the device of `tensor`: makes it current for its lifetime and takes PyTorch's stream.
class CudaCall {
 public:
  CudaCall(const char* op, const char* argument, const Tensor& tensor);

  CudaStream stream() const { return stream_; }
  // The other arguments must be on the same device.
  void check_device(const char* argument, const Tensor& tensor) const;
  // What a launcher returned.
  void check_launch(int error) const;

 private:
  const char* op_;
  const char* argument_;  // whose device is used
  int32_t device_index_;
  torch::stable::accelerator::DeviceGuard guard_;
  CudaStream stream_;
};

}  // namespace longclock
