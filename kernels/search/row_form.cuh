// SPDX-License-Identifier: Apache-2.0
// How the rows of a search are read, and the query in shared memory that goes with it.
#pragma once

#include <type_traits>

#include "longclock/common/mma.cuh"
#include "longclock/common/vector16.cuh"
#include "longclock/search/byte_rows.cuh"
#include "longclock/search/device_search.h"

namespace longclock {

constexpr int kQueryBytes = 16384;  // of a query in shared memory, at most

// How rows are read: element by element by quads, in whole aligned pieces by quads, or in whole
// aligned pieces by eight lanes a row.
enum class RowForm { kElements, kQuads, kLines };

// Where the 32-bit word of a piece of the query lies in shared memory: for mma, a lane's two words
// side by side.
template <class T>
__device__ __forceinline__ int query_place(int d) {
  if constexpr (!kHasMma<T>) return d;
  const int word = d / 2 % 4;
  return d + 2 * ((word == 1) - (word == 2));
}

// What a row takes of a query in shared memory: whole steps of eight pieces.
LONGCLOCK_INLINE constexpr int step_bytes(int64_t dim, int element_size) {
  return static_cast<int>((dim * element_size + 127) / 128 * 128);
}

// Copies columns [begin, begin + dim) of a query, rounded to T and padded with zeros to whole
// steps, to shared memory.
template <class T>
__device__ __forceinline__ void load_columns(const DeviceSearchParams& p, int64_t q, int64_t begin,
                                             int64_t dim, T* shared) {
  const int padded = step_bytes(dim, sizeof(T)) / static_cast<int>(sizeof(T));
  for (int d = threadIdx.x; d < padded; d += blockDim.x) {
    const int64_t at = q * p.query_dim + begin + d;
    shared[query_place<T>(d)] = d >= dim ? T{}
                                : p.query_is_float
                                    ? narrow<T>(static_cast<const float*>(p.query)[at])
                                    : static_cast<const T*>(p.query)[at];
  }
}

// Whether queries of rows of T are copied to shared memory.
template <class T, RowForm kForm>
inline constexpr bool kSharesQuery = kForm != RowForm::kElements || kIsInt8Query<T>;

// Copies a query to shared memory, query_bytes() of it.
template <class T>
__device__ __forceinline__ void load_query(const DeviceSearchParams& p, int64_t q,
                                           QueryOf<T>* shared) {
  if constexpr (kIsInt8Query<T>) {
    if (warp_index() == 0) load_int8_query(p, q, shared);
  } else if constexpr (kInBytes<T>) {
    load_byte_query(p, q, threadIdx.x, blockDim.x, shared);
  } else {
    int64_t begin = 0;
    const auto load = [&](int64_t dim) {
      load_columns(p, q, begin, dim, shared);
      begin += dim;
      shared += step_bytes(dim, sizeof(T)) / static_cast<int>(sizeof(T));
    };
    load(p.behaviours.dim);
#pragma unroll 1
    for (int f = 0; f < p.behaviours.feature_count; ++f) load(p.behaviours.features[f].dim);
  }
}

// Whether rows lie in whole aligned pieces of 16 bytes.
inline bool search_is_aligned(const DeviceSearchParams& p) {
  const Behaviours& b = p.behaviours;
  bool aligned = aligned16(b.keys, b.key_row_stride, b.dim, b.dtype) && p.sequence_bytes % 16 == 0;
  for (int i = 0; i < b.feature_count; ++i) {
    const Feature& f = b.features[i];
    aligned = aligned && aligned16(f.keys, f.row_stride, f.dim, b.dtype);
  }
  return aligned;
}

// Bytes of a query in shared memory.
inline int64_t padded_query_bytes(const DeviceSearchParams& p) {
  const Behaviours& b = p.behaviours;
  if (is_byte(b.dtype)) return byte_query_bytes(b);
  int64_t bytes = step_bytes(b.dim, size_of(b.dtype));
  for (int i = 0; i < b.feature_count; ++i) {
    bytes += step_bytes(b.features[i].dim, size_of(b.dtype));
  }
  return bytes;
}

inline RowForm row_form(const DeviceSearchParams& p) {
  const Behaviours& b = p.behaviours;
  if (padded_query_bytes(p) > kQueryBytes || !search_is_aligned(p)) return RowForm::kElements;
  return b.dim * size_of(b.dtype) <= 64 ? RowForm::kQuads : RowForm::kLines;
}

// Calls f(std::integral_constant<RowForm, ...>).
template <class F>
void with_form(const DeviceSearchParams& p, const F& f) {
  switch (row_form(p)) {
    case RowForm::kElements:
      return f(std::integral_constant<RowForm, RowForm::kElements>());
    case RowForm::kQuads:
      return f(std::integral_constant<RowForm, RowForm::kQuads>());
    case RowForm::kLines:
      return f(std::integral_constant<RowForm, RowForm::kLines>());
  }
}

// Calls f(that, std::bool_constant<whether there are features>).
template <class F>
void with_row_form(const DeviceSearchParams& p, const F& f) {
  with_form(p, [&](auto form) {
    if (p.behaviours.feature_count > 0) return f(form, std::true_type());
    return f(form, std::false_type());
  });
}

// Calls f(an element of rows of int8, or of float8, with_form()'s), of rows that have no features.
// Queries that are rounded to bfloat16 are multiplied as floats.
template <class F>
void with_int8_rows(const DeviceSearchParams& p, const F& f) {
  with_form(p, [&](auto form) {
    if (p.behaviours.query_dtype == DType::kInt8) return f(Int8By<int8_t>{}, form);
    f(Int8By<float>{}, form);
  });
}
template <class F>
void with_float8_rows(const DeviceSearchParams& p, const F& f) {
  with_form(p, [&](auto form) { f(Float8By<float>{}, form); });
}

// Bytes of shared memory that load_query needs.
inline int query_bytes(const DeviceSearchParams& p) {
  const Behaviours& b = p.behaviours;
  const bool scaled = is_byte(b.dtype) && b.query_dtype == DType::kInt8;
  if (scaled) return static_cast<int>(padded_query_bytes(p)) + kQueryScaleBytes;
  return row_form(p) == RowForm::kElements ? 0 : static_cast<int>(padded_query_bytes(p));
}

}  // namespace longclock
