// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda.h"
#include "search.h"

namespace longclock {

// For CUDA: the arguments on one device, announced to the call. Nothing of them is read.
class DeviceSearchInputs : public SearchInputs {
 public:
  DeviceSearchInputs(const char* op, CudaCall& call, const SearchArguments& arguments);
  // Without score_begin and score_count.
  DeviceSearch params(double scale) const;

 private:
  Tensor query_;
};

}  // namespace longclock
