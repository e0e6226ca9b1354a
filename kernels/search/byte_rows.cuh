// SPDX-License-Identifier: Apache-2.0
// Rows of int8 and of float8, each with a scale, on CUDA. They are read in pieces of 16 bytes, as
// rows of all dtypes are, and decoded where they are multiplied: with queries of floats as floats,
// which hold them exactly, with queries of int8 four at a time, to integers that a float holds. A
// product is multiplied by its row's scale once it is whole, and that by the query's.
#pragma once

#include <type_traits>

#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/search/device_search.h"

namespace longclock {

// What a query's elements are as they are multiplied with those of rows of T.
template <class T>
struct QueryElement {
  using Type = T;
};
template <class Query>
struct QueryElement<Int8By<Query>> {
  using Type = Query;
};
template <class Query>
struct QueryElement<Float8By<Query>> {
  using Type = Query;
};
template <class T>
using QueryOf = typename QueryElement<T>::Type;

template <class T>
inline constexpr bool kInBytes = !std::is_same_v<T, QueryOf<T>>;
template <class T>
inline constexpr bool kIsFloat8 = std::is_same_v<T, Float8By<QueryOf<T>>>;
// Whether queries are of int8 as well. They lie in shared memory however rows are read, each with
// its scale behind it.
template <class T>
inline constexpr bool kIsInt8Query = std::is_same_v<QueryOf<T>, int8_t>;
// A sum of products.
template <class T>
using SumOf = std::conditional_t<kIsInt8Query<T>, int, float>;

// Columns of a query in shared memory: whole steps of eight pieces of rows.
LONGCLOCK_INLINE constexpr int byte_query_columns(int64_t dim) {
  return static_cast<int>((dim + 127) / 128 * 128);
}
inline int64_t byte_query_bytes(const Behaviours& b) {
  return byte_query_columns(b.dim) * (b.query_dtype == DType::kInt8 ? 1 : 4);
}
constexpr int kQueryScaleBytes = 16;  // behind a query of int8

// Where column d of a query of floats lies in shared memory. Of a piece of a row a lane needs four
// pieces of the query, one after the other: eight lanes meet no bank twice.
__device__ __forceinline__ int byte_query_place(int d) { return d ^ (d / 32 % 4 * 4); }

// An element of a query of fp32, rounded to what it is multiplied as where that is a float.
__device__ __forceinline__ float rounded_element(const DeviceSearchParams& p, float value) {
  return p.behaviours.query_dtype == DType::kBFloat16 ? widen(narrow<BFloat16>(value)) : value;
}

// Element `at` of all queries, rounded as well.
__device__ __forceinline__ float query_element(const DeviceSearchParams& p, int64_t at) {
  float value;
  if (p.given_query == DType::kFloat32) {
    value = static_cast<const float*>(p.query)[at];
  } else if (p.given_query == DType::kFloat16) {
    value = widen(static_cast<const Float16*>(p.query)[at]);
  } else {
    value = widen(static_cast<const BFloat16*>(p.query)[at]);
  }
  return rounded_element(p, value);
}

// Copies a query to shared memory, padded with zeros: columns `first`, first + step and so on.
__device__ __forceinline__ void load_byte_query(const DeviceSearchParams& p, int64_t q, int first,
                                                int step, float* shared) {
  const int64_t dim = p.behaviours.dim;
  for (int d = first; d < byte_query_columns(dim); d += step) {
    shared[byte_query_place(d)] = d < dim ? query_element(p, q * dim + d) : 0.0f;
  }
}

// How queries are rounded to int8, as ScaledQueriesParams say. As integers the sizes of elements
// have their order, and what is not finite is the largest.
__device__ __forceinline__ uint32_t element_size(float value) {
  return __float_as_uint(value) & 0x7fffffffu;
}
__device__ __forceinline__ float int8_scale(uint32_t largest) {
  if (largest >= 0x7f800000u) return __int_as_float(0x7fc00000);
  return __fdiv_rn(__uint_as_float(largest), 127.0f);
}
__device__ __forceinline__ int to_int8(float value, float scale) {
  if (!(scale > 0.0f)) return 0;
  return __float2int_rn(fminf(fmaxf(__fdiv_rn(value, scale), -127.0f), 127.0f));
}

// The same of a query that is rounded to int8, with its scale. By a warp.
__device__ __forceinline__ void load_int8_query(const DeviceSearchParams& p, int64_t q,
                                                int8_t* shared) {
  const int dim = static_cast<int>(p.behaviours.dim), columns = byte_query_columns(dim);
  const int64_t begin = q * dim;
  uint32_t largest = 0;
  for (int d = lane_index(); d < dim; d += kWarp) {
    largest = max(largest, element_size(query_element(p, begin + d)));
  }
  const float scale = int8_scale(warp_max(largest));
  for (int d = lane_index(); d < columns; d += kWarp) {
    const float value = d < dim ? query_element(p, begin + d) : 0.0f;
    shared[d] = static_cast<int8_t>(to_int8(value, scale));
  }
  if (lane_index() == 0) {
    *reinterpret_cast<float*>(shared + columns) = __fmul_rn(p.scale, scale);
  }
}

// What a query's products are multiplied by: the search's scale, or what lies behind the query.
template <class T>
__device__ __forceinline__ float query_scale(const DeviceSearchParams& p, const QueryOf<T>* query) {
  if constexpr (!kIsInt8Query<T>) return p.scale;
  return *reinterpret_cast<const float*>(query + byte_query_columns(p.behaviours.dim));
}

// Of four elements of float8 those that are NaN, which have all bits but the sign: their signs.
__device__ __forceinline__ uint32_t nans_of_float8(uint32_t word) {
  return ((word & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
}

// Four elements as floats. Of int8 128 more than each are the lowest bits of 2^23 and as much.
// Those of float8 lie where a float has its sign, its lowest four bits of the exponent and its
// highest three behind it; the exponent is then 120 too small.
template <class T>
__device__ __forceinline__ void widen_bytes(uint32_t word, float (&out)[4]) {
  if constexpr (kIsFloat8<T>) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t bits = static_cast<uint32_t>(static_cast<int>(word << (24 - 8 * i)) >> 4);
      out[i] = __uint_as_float(bits & 0x87f00000u) * 0x1p120f;
    }
    if (const uint32_t nans = nans_of_float8(word)) {
      for (int i = 0; i < 4; ++i) {
        if (nans >> (8 * i + 7) & 1) out[i] = __int_as_float(0x7fc00000);
      }
    }
  } else {
    const uint32_t moved = word ^ 0x80808080u;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t bits = __byte_perm(moved, 0x4b000000u, 0x7440 + i);
      out[i] = __uint_as_float(bits) - 8388736.0f;  // 2^23 + 128
    }
  }
}

// A piece of a row that lies anywhere, of which `left` bytes are left; zeros behind them.
__device__ __forceinline__ uint4 load_bytes(const void* row, int64_t left) {
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i >= left) continue;
    const uint32_t bits = __ldg(static_cast<const uint8_t*>(row) + i);
    words[i / 4] |= bits << (i % 4 * 8);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ __forceinline__ uint32_t word_of(const uint4& piece, int i) {
  return i == 0 ? piece.x : i == 1 ? piece.y : i == 2 ? piece.z : piece.w;
}

// sum + the product of a piece of a row with one of a query.
__device__ __forceinline__ int add_bytes(const uint4& row, const uint4& query, int sum) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = __dp4a(static_cast<int>(word_of(row, i)), static_cast<int>(word_of(query, i)), sum);
  }
  return sum;
}

// The same of four elements.
__device__ __forceinline__ float add_four(const float (&row)[4], const float4& query, float sum) {
  sum = fmaf(row[0], query.x, sum);
  sum = fmaf(row[1], query.y, sum);
  sum = fmaf(row[2], query.z, sum);
  return fmaf(row[3], query.w, sum);
}

}  // namespace longclock
