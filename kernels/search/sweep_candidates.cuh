// SPDX-License-Identifier: Apache-2.0
// The candidates of a block of a sweep, and how they come to shared memory.
#pragma once

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

}  // namespace longclock
