// SPDX-License-Identifier: Apache-2.0
// Arrays from a row on, for launches that are cut into ranges of rows.
#pragma once

#include "longclock/common/dtype.h"

namespace longclock {

// Array `array` of `size` elements a row, from row `first` on.
template <class Pointer>
Pointer* from_row(Pointer* array, int64_t first, int64_t size) {
  return array == nullptr ? nullptr : array + first * size;
}
inline const void* from_row(const void* array, DType dtype, int64_t first, int64_t size) {
  return from_row(static_cast<const char*>(array), first, size * size_of(dtype));
}
inline void* from_row(void* array, DType dtype, int64_t first, int64_t size) {
  return from_row(static_cast<char*>(array), first, size * size_of(dtype));
}
inline IntArray from_row(const IntArray& array, int64_t first) {
  return {from_row(static_cast<const char*>(array.data), first, array.is_64 ? 8 : 4), array.is_64};
}

}  // namespace longclock
