// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/cuda_call.h"
#include "longclock/search/search_topk.h"
#include "search/search.h"

namespace longclock {

// Announces to the call what its kernels read of a layout.
void announce_layout(CudaCall& call, const LayoutInputs& inputs);
// A search's parameters as far as its layout goes: without rows, queries and s().
DeviceSearchParams layout_params(const LayoutInputs& inputs);

// For CUDA: the arguments on one device, announced to the call. Nothing of them is read.
class DeviceSearchInputs : public SearchInputs {
 public:
  DeviceSearchInputs(const char* op, CudaCall& call, const SearchArguments& arguments);
  // Without score_begin and score_count.
  DeviceSearchParams params(double scale) const;

 private:
  Tensor query_;
};

// A search for the k best behaviours of every query: its outputs, and what a launcher takes.
struct DeviceSearchTopKCall {
  Tensor scores, indices, entries;
  DeviceSearchTopKParams params{};
  DeviceSearchTopKCall(CudaCall& call, const DeviceSearchInputs& search, double scale, int64_t k);
  bool is_empty() const { return params.k == 0 || params.search.queries == 0; }
  // Into parts, where there are fewer queries than fill the device.
  void cut(CudaCall& call);
  // The same where a TeamSelector takes a part.
  void cut_for_teams(CudaCall& call);
  void cut_into(CudaCall& call, int64_t parts);
};

}  // namespace longclock
