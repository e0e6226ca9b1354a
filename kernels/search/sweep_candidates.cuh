// SPDX-License-Identifier: Apache-2.0
// The candidates of a block of a sweep, and how they come to shared memory.
#pragma once

#include "longclock/search/byte_candidate_tile.cuh"
#include "longclock/search/candidate_range.cuh"
#include "longclock/search/candidate_tile.cuh"
#include "longclock/search/key_stages.cuh"

namespace longclock {

template <class T, int kRowBytes>
constexpr int kBlockCandidates = 2 * CandidateTile<T, kRowBytes>::kWarpCandidates;

// Swizzled rows of the candidates in shared memory, zeros where there are none.
template <class T, int kRowBytes>
__device__ __forceinline__ void load_candidates(const DeviceSearchParams& p,
                                                const CandidateRange& candidates, char* rows) {
  constexpr int kPieces = kRowBytes / 16, kAll = kBlockCandidates<T, kRowBytes> * kPieces;
  const bool aligned = reinterpret_cast<uintptr_t>(p.query) % 16 == 0;
  const int dim = static_cast<int>(p.query_dim);
  const auto place = [&](int i) { return rows + swizzled<kRowBytes>(i / kPieces, i % kPieces); };
  if (aligned && (sizeof(T) == 4 || !p.query_is_float)) {  // as they are, all copies in flight
    const T* const queries = static_cast<const T*>(p.query) + candidates.query * dim;
#pragma unroll 8
    for (int i = threadIdx.x; i < kAll; i += kSweepThreads) {
      const int row = i / kPieces, d = i % kPieces * kVector16<T>;
      const bool valid = row < candidates.count && d < dim;
      copy16_async(shared_address(place(i)), valid ? queries + row * dim + d : queries,
                   valid ? 16 : 0);
    }
    end_copy_group();
    wait_for_copies<0>();
    return;
  }
  for (int i = threadIdx.x; i < kAll; i += kSweepThreads) {
    const int row = i / kPieces, d = i % kPieces * kVector16<T>;
    const int64_t q = candidates.query + row;
    uint4 value = make_uint4(0, 0, 0, 0);
    if (row < candidates.count && d < dim) {
      value = aligned ? query_piece<T, true>(p, q, d, dim) : query_piece<T, false>(p, q, d, dim);
    }
    *reinterpret_cast<uint4*>(place(i)) = value;
  }
}

// Four columns of a query of rows in bytes, from column d on, which has a row of the block's: as
// int8, or in slices, at a multiple of four.
template <class T, int kRowBytes>
__device__ __forceinline__ void store_four(const float (&values)[4], float scale, int row, int d,
                                           char* rows) {
  if constexpr (kIsInt8Query<T>) {
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      word |= (static_cast<uint32_t>(to_int8(values[i], scale)) & 0xffu) << (8 * i);
    }
    *reinterpret_cast<uint32_t*>(rows + swizzled<kRowBytes>(row, d / 16) + d % 16) = word;
  } else {
    constexpr int kCount = kSlices<QueryOf<T>>,
                  kBytes = CandidateTile<T, kRowBytes>::kCandidateBytes;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      __half low[kCount], high[kCount];
      slice<kCount>(values[i] * scale, low);
      slice<kCount>(values[i + 1] * scale, high);
#pragma unroll
      for (int s = 0; s < kCount; ++s) {
        const int column = s * kRowBytes + sliced_column(d + i);
        *reinterpret_cast<__half2*>(rows + swizzled<kBytes>(row, column / 8) + column % 8 * 2) =
            __halves2half2(low[s], high[s]);
      }
    }
  }
}

// The same of queries of rows in bytes, a quad each; and what their products are multiplied by.
template <class T, int kRowBytes>
__device__ __forceinline__ void load_byte_candidates(const DeviceSearchParams& p,
                                                     const CandidateRange& candidates, char* rows,
                                                     float* scales) {
  const int dim = static_cast<int>(p.query_dim), column = lane_index() % 4 * 4;
  const bool whole = p.query_is_float && reinterpret_cast<uintptr_t>(p.query) % 16 == 0;
#pragma unroll 1
  for (int row = threadIdx.x / 4; row < kBlockCandidates<T, kRowBytes>; row += kSweepThreads / 4) {
    const auto four = [&](int d, float (&out)[4]) {
      const int64_t at = (candidates.query + row) * dim + d;
      if (row >= candidates.count || d >= dim) {
        for (float& value : out) value = 0.0f;
      } else if (whole) {
        widen16<float>(load16<float, true>(static_cast<const float*>(p.query), at, at + 4), out);
        for (float& value : out) value = rounded_element(p, value);
      } else {
        for (int i = 0; i < 4; ++i) out[i] = query_element(p, at + i);
      }
    };
    float values[4];
    uint32_t largest = 0;
#pragma unroll 4
    for (int d = column; d < kRowBytes; d += 16) {
      four(d, values);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t size = element_size(values[i]);
        if (kIsInt8Query<T> || size < 0x7f800000u) largest = max(largest, size);
      }
    }
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const float scale = kIsInt8Query<T> ? int8_scale(largest) : slice_factor(largest);
#pragma unroll 4
    for (int d = column; d < kRowBytes; d += 16) {
      four(d, values);
      store_four<T, kRowBytes>(values, scale, row, d, rows);
    }
    const float inverse = kIsInt8Query<T> ? scale : inverse_of_power(scale) * kKeyFactor<T>;
    if (column == 0) scales[row] = __fmul_rn(p.scale, inverse);
  }
}

}  // namespace longclock
