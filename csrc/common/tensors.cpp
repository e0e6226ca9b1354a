// SPDX-License-Identifier: Apache-2.0
#include "tensors.h"

#include <algorithm>

#include "checks.h"

namespace longclock {

Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

Tensor as_dtype(const Tensor& tensor, ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
}

std::optional<std::vector<int64_t>> contiguous_strides(Sizes sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d > 1; --d) {
    const int64_t inner = std::max<int64_t>(sizes[d - 1], 1);
    if (__builtin_mul_overflow(strides[d - 1], inner, &strides[d - 2])) return std::nullopt;
  }
  return strides;
}

Tensor make_empty(const Tensor& like, Sizes sizes, ScalarType dtype) {
  const auto strides = contiguous_strides(sizes);
  int32_t device_type = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle tensor = nullptr;
  if (!strides || aoti_torch_empty_strided(
                      static_cast<int64_t>(sizes.size()), sizes.data(), strides->data(), code,
                      device_type, like.get_device_index(), &tensor) != AOTI_TORCH_SUCCESS) {
    check(false, "longclock: PyTorch could not make a tensor of shape ", bracketed(sizes),
          "; where memory is short, free some, or call with fewer sequences at a time");
  }
  return Tensor(tensor);
}

}  // namespace longclock
