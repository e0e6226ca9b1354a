// SPDX-License-Identifier: Apache-2.0
// Arrays that a caller has, as calls take them. None owns what it points to.
#pragma once

#include <concepts>
#include <cstdint>
#include <ranges>
#include <type_traits>

#include "longclock/common/dtype.h"

namespace longclock {

// Integers that lie side by side: a std::vector, a std::span, or a pointer and a count.
class IntSpan {
 public:
  IntSpan() = default;  // none: an argument that is left out
  template <std::signed_integral Int>
    requires(sizeof(Int) == 4 || sizeof(Int) == 8)
  IntSpan(const Int* data, int64_t size)
      : ints_{data, sizeof(Int) == 8}, size_(size), given_(true) {}
  template <std::ranges::contiguous_range Range>
    requires std::ranges::borrowed_range<Range> &&
             std::signed_integral<std::ranges::range_value_t<Range>>
  IntSpan(Range&& range)
      : IntSpan(std::ranges::data(range), static_cast<int64_t>(std::ranges::size(range))) {}

  int64_t size() const { return size_; }
  const IntArray& ints() const { return ints_; }
  explicit operator bool() const { return given_; }

 private:
  IntArray ints_;
  int64_t size_ = 0;
  bool given_ = false;
};

template <class T>
constexpr DType dtype_of_element() {
  if constexpr (std::same_as<T, Float16>) return DType::kFloat16;
  if constexpr (std::same_as<T, BFloat16>) return DType::kBFloat16;
  return DType::kFloat32;
}

// Rows of `dim` floats that lie side by side, `stride` elements from one row to the next.
struct RowSpan {
  DType dtype = DType::kFloat32;
  const void* data = nullptr;
  int64_t rows = 0, dim = 0, stride = 0;

  RowSpan() = default;
  RowSpan(DType dtype, const void* data, int64_t rows, int64_t dim, int64_t stride)
      : dtype(dtype), data(data), rows(rows), dim(dim), stride(stride) {}
  template <class T>
    requires std::same_as<T, float> || std::same_as<T, Float16> || std::same_as<T, BFloat16>
  RowSpan(const T* data, int64_t rows, int64_t dim, int64_t stride)
      : RowSpan(dtype_of_element<T>(), data, rows, dim, stride) {}
  template <class T>
  RowSpan(const T* data, int64_t rows, int64_t dim) : RowSpan(data, rows, dim, dim) {}
};

}  // namespace longclock
