// SPDX-License-Identifier: Apache-2.0
#include "common/tensors.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstring>

#include "common/checks.h"
#include "longclock/common/fork.h"

namespace longclock {
namespace {

// PyTorch cuts its own copies into parallel pieces, which a forked child cannot wait for: there,
// these take their place.

Tensor copied(const Tensor& tensor) {
  Tensor out = make_empty(tensor, tensor.sizes());
  const auto* from = static_cast<const char*>(tensor.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  const auto size = static_cast<int64_t>(tensor.element_size());
  for_each_offset(tensor.sizes(), tensor.strides(), [&](int64_t offset) {
    std::memcpy(to, from + offset * size, static_cast<size_t>(size));
    to += size;
  });
  return out;
}

// f with the elements' type, of the three that the kernels compute in.
template <class F>
void with_floats(ScalarType dtype, const F& f) {
  if (dtype == ScalarType::Half) {
    f(c10::Half{});
  } else if (dtype == ScalarType::BFloat16) {
    f(c10::BFloat16{});
  } else {
    f(float{});
  }
}

Tensor converted(const Tensor& tensor, ScalarType dtype) {
  const Tensor rows = as_contiguous(tensor);
  Tensor out = make_empty(rows, rows.sizes(), dtype);
  with_floats(rows.scalar_type(), [&](auto from_type) {
    with_floats(dtype, [&](auto to_type) {
      const auto* from = static_cast<const decltype(from_type)*>(rows.const_data_ptr());
      auto* to = static_cast<decltype(to_type)*>(out.mutable_data_ptr());
      for (int64_t i = 0; i < rows.numel(); ++i) {
        to[i] = static_cast<decltype(to_type)>(static_cast<float>(from[i]));
      }
    });
  });
  return out;
}

bool must_copy_here(const Tensor& tensor) { return in_forked_child() && !tensor.is_cuda(); }

}  // namespace

Tensor as_contiguous(const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  return must_copy_here(tensor) ? copied(tensor) : torch::stable::contiguous(tensor);
}

Tensor unit_stride(const Tensor& rows) {
  const int64_t last = rows.dim() - 1;
  return rows.stride(last) == 1 || rows.size(last) <= 1 ? rows : as_contiguous(rows);
}

Tensor as_dtype(const Tensor& tensor, ScalarType dtype) {
  if (tensor.scalar_type() == dtype) return tensor;
  return must_copy_here(tensor) ? converted(tensor, dtype) : torch::stable::to(tensor, dtype);
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
    check<std::runtime_error>(
        false, "longclock: PyTorch could not make a tensor of shape ", bracketed(sizes),
        "; where memory is short, free some, or call with fewer sequences at a time");
  }
  return Tensor(tensor);
}

}  // namespace longclock
