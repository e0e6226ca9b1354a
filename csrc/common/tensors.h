// SPDX-License-Identifier: Apache-2.0
// What the ops ask of PyTorch tensors over and over. A function of torch/csrc/stable/ops.h goes
// through the dispatcher, by name and on a heap of boxes, which takes about a microsecond; these
// only do so where there is something to do.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <vector>

namespace longclock {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

// Calls f with the offset, in elements, of each element of a strided tensor in turn.
template <class F>
void for_each_offset(Sizes sizes, Sizes strides, const F& f) {
  int64_t left = 1, offset = 0;
  for (const int64_t size : sizes) left *= size;
  std::vector<int64_t> at(sizes.size());
  for (; left > 0; --left) {
    f(offset);
    for (size_t d = sizes.size(); d-- > 0;) {
      offset += strides[d];
      if (++at[d] < sizes[d]) break;
      offset -= strides[d] * at[d];
      at[d] = 0;
    }
  }
}

// The tensor itself where it is contiguous, else a copy.
Tensor as_contiguous(const Tensor& tensor);
// Rows that a kernel can walk, whose elements lie side by side; else a copy.
Tensor unit_stride(const Tensor& rows);
// The tensor itself where it has the dtype, else a copy.
Tensor as_dtype(const Tensor& tensor, ScalarType dtype);
// Of a contiguous tensor; none where they overflow.
std::optional<std::vector<int64_t>> contiguous_strides(Sizes sizes);
// Uninitialised and contiguous, on the device of `like`.
Tensor make_empty(const Tensor& like, Sizes sizes, ScalarType dtype);
inline Tensor make_empty(const Tensor& like, Sizes sizes) {
  return make_empty(like, sizes, like.scalar_type());
}

}  // namespace longclock
