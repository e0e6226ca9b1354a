// SPDX-License-Identifier: Apache-2.0
// Products of candidates of floats with keys in bytes on tensor cores. Keys lie in shared memory as
// bytes and become fp16, which holds them exactly, as they are read: a word of four is two words of
// B. Candidates are multiplied by a power of two that brings the largest element to 2^14, and are
// one number of fp16 an element, which all of bfloat16's bits fit, or for fp32 two, whose sum is
// the element but for 2^-22 of the largest. Their rows are one behind the other.
#pragma once

#include "longclock/search/candidate_tile.cuh"

namespace longclock {

// Numbers of fp16 that an element of a query is.
template <class Query>
inline constexpr int kSlices = sizeof(Query) == 2 ? 1 : 2;
// Columns of rows in bytes that a sweep takes at most.
template <class Query>
inline constexpr int kMostColumns = sizeof(Query) == 1 ? 512 : 256 / kSlices<Query>;
// Bytes of rows of T that it takes at most.
template <class T>
inline constexpr int kMostRowBytes = kInBytes<T> ? kMostColumns<QueryOf<T>> : 512;

// Where column c of a candidate lies among the columns of each slice: of every 16 the first two of
// each four come before the last two, as the words of B have them.
LONGCLOCK_INLINE constexpr int sliced_column(int c) {
  return c / 16 * 16 + c % 4 / 2 * 8 + c % 16 / 4 * 2 + c % 2;
}

// The power of two that brings the largest of some finite sizes, as an integer, to 2^14.
__device__ __forceinline__ float slice_factor(uint32_t largest) {
  const int exponent = static_cast<int>(largest >> 23);
  return __int_as_float(min(268 - exponent, 253) << 23);
}
__device__ __forceinline__ float inverse_of_power(float power) {
  return __int_as_float(0x7f000000 - __float_as_int(power));
}

// Slices of the products of an element with its candidate's power of two.
template <int kCount>
__device__ __forceinline__ void slice(float value, __half (&out)[kCount]) {
  out[0] = __float2half_rn(value);
  const bool finite = element_size(value) < 0x7f800000u;
  if constexpr (kCount == 2) out[1] = __float2half_rn(finite ? value - __half2float(out[0]) : 0.0f);
}

// What keys are multiplied by once they are fp16, and sums of products are to be: the exponent of
// fp16 is 8 less than what that of float8 is in its place.
template <class T>
inline constexpr float kKeyFactor = kIsFloat8<T> ? 256.0f : 1.0f;

// Four elements as fp16, over kKeyFactor.
template <class T>
__device__ __forceinline__ uint2 halves_of_bytes(uint32_t word)
  requires kIsFloat8<T>
{
  const auto half2 = [&](uint32_t selector) {
    const uint32_t bits = __byte_perm(word, 0, selector);  // the upper bytes of two halves
    return (bits & 0x80008000u) | (bits >> 1 & 0x3f803f80u);
  };
  uint2 halves = make_uint2(half2(0x1404), half2(0x3424));
  if (const uint32_t nans = nans_of_float8(word)) {
    halves.x |= (nans >> 7 & 1) * 0x7fffu | (nans >> 15 & 1) * 0x7fff0000u;
    halves.y |= (nans >> 23 & 1) * 0x7fffu | (nans >> 31 & 1) * 0x7fff0000u;
  }
  return halves;
}

// Of int8: 128 more than each are the lowest bits of 1,024 and as much.
template <class T>
__device__ __forceinline__ uint2 halves_of_bytes(uint32_t word) {
  const uint32_t moved = word ^ 0x80808080u;
  const auto half2 = [&](uint32_t selector) {
    const uint32_t bits = __byte_perm(moved, 0x64646464u, selector), more = 0x64806480u;  // 1,152
    const __half2 value =
        __hsub2(reinterpret_cast<const __half2&>(bits), reinterpret_cast<const __half2&>(more));
    return reinterpret_cast<const uint32_t&>(value);
  };
  return make_uint2(half2(0x4140), half2(0x4342));
}

// kRowBytes: of a key's row.
template <template <class> class KeyBy, class Query, int kRowBytes>
  requires(kInBytes<KeyBy<Query>> && sizeof(Query) > 1)
class CandidateTile<KeyBy<Query>, kRowBytes>
    : public CandidateTile<Float16, kRowBytes * 2 * kSlices<Query>> {
  using Candidates = CandidateTile<Float16, kRowBytes * 2 * kSlices<Query>>;
  using Key = KeyBy<Query>;
  using Candidates::a_;

 public:
  using Candidates::kGroups, Candidates::kLaneKeys, Candidates::kStepKeys;
  using typename Candidates::Products;

  __device__ static uint32_t lane_place() {
    const int lane = lane_index();
    return swizzled<kRowBytes>(Fragments::b_row<Key>(lane), Fragments::b_piece<Key>(lane));
  }

  __device__ void multiply(uint32_t row, int step, Products& out) const {
    float c[kGroups][kStepKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kRowBytes / 32; ++k) {
      uint32_t b[4];
      load_matrices(b, moved(row, 2 * k) + step * kStepKeys * kRowBytes);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint2 first = halves_of_bytes<Key>(b[half]),
                    second = halves_of_bytes<Key>(b[2 + half]);
#pragma unroll
        for (int s = 0; s < kSlices<Query>; ++s) {
#pragma unroll
          for (int group = 0; group < kGroups; ++group) {
            const uint32_t (&a)[4] = a_[group][s * (kRowBytes / 16) + 2 * k + half];
            mma_16x8x16<Float16>(c[group][0], a[0], a[1], a[2], a[3], first.x, first.y);
            mma_16x8x16<Float16>(c[group][1], a[0], a[1], a[2], a[3], second.x, second.y);
          }
        }
      }
    }
    Candidates::arrange(c, out);
  }
};

}  // namespace longclock
