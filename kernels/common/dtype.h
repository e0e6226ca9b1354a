// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/inline.h"

namespace longclock {

// Element types of keys, tables and z. Storage only: all arithmetic is fp32, but for products of
// int8 rows with int8 queries. int8 and float8, which is e4m3 without infinities, are for rows that
// have a scale each, which only searches take, int64 for the words of hashes, which only
// hamming_gsu takes.
enum class DType : int8_t { kFloat32, kFloat16, kBFloat16, kInt8, kFloat8, kInt64 };

LONGCLOCK_INLINE constexpr bool is_byte(DType type) {
  return type == DType::kInt8 || type == DType::kFloat8;
}

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
// An element of an int8 row, as it is multiplied with queries whose elements are Query: float,
// BFloat16 or int8_t.
template <class Query>
struct Int8By {
  int8_t value;
};
// The same of float8, with queries of float or BFloat16.
template <class Query>
struct Float8By {
  uint8_t bits;
};

LONGCLOCK_INLINE constexpr int64_t size_of(DType type) {
  return type == DType::kInt64 ? 8 : type == DType::kFloat32 ? 4 : is_byte(type) ? 1 : 2;
}

// Runs the statements with `T` naming the element type of `dtype`, which is one of floats.
#define LONGCLOCK_WITH_DTYPE(dtype, T, ...) \
  switch (dtype) {                          \
    case ::longclock::DType::kFloat32: {    \
      using T = float;                      \
      __VA_ARGS__;                          \
      break;                                \
    }                                       \
    case ::longclock::DType::kFloat16: {    \
      using T = ::longclock::Float16;       \
      __VA_ARGS__;                          \
      break;                                \
    }                                       \
    case ::longclock::DType::kBFloat16: {   \
      using T = ::longclock::BFloat16;      \
      __VA_ARGS__;                          \
      break;                                \
    }                                       \
    case ::longclock::DType::kInt8:         \
    case ::longclock::DType::kFloat8:       \
    case ::longclock::DType::kInt64:        \
      break;                                \
  }

// A read-only array of int32 or int64: times, ids, lengths.
struct IntArray {
  const void* data = nullptr;
  bool is_64 = true;
  LONGCLOCK_INLINE int64_t operator[](int64_t i) const {
    return is_64 ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
  LONGCLOCK_INLINE explicit operator bool() const { return data != nullptr; }
  // The same from element `begin` on.
  LONGCLOCK_INLINE IntArray from(int64_t begin) const {
    return {static_cast<const char*>(data) + begin * (is_64 ? 8 : 4), is_64};
  }
};

}  // namespace longclock
