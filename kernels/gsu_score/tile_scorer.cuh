// SPDX-License-Identifier: Apache-2.0
// Scores of 32 behaviours of one query, by one warp. Keys go from global memory to registers in
// pieces of 16 bytes: the four lanes of a quad read 64 bytes of a row, the eight quads eight rows,
// so that a request is 16 full sectors. Four such groups of rows are in flight at a time.
// 16-bit keys go through tensor cores. The four registers of a piece lie as a row g and a row g + 8
// of A: the same key twice, with other columns. B holds the query's columns for the first in its
// even columns and those for the second in its odd ones, so that one mma takes one piece as it was
// loaded, and C holds both halves of the dot product in every lane of the quad.
#pragma once

#include "../common/mma.cuh"
#include "../common/vector16.cuh"
#include "../time_similarity/time_term.cuh"
#include "search.cuh"

namespace longclock {

constexpr int kTileRows = kWarp;
constexpr int kTileGroups = 4;  // of eight rows
// Blocks of 256 threads a multiprocessor whose registers suffice for whole pieces.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kTileBlocks = 2;
#else
constexpr int kTileBlocks = 3;
#endif
constexpr int kQueryBytes = 16384;  // of a query in shared memory, at most

// Where the 32-bit word of a piece of the query lies in shared memory: for mma, a lane's two words
// side by side.
template <class T>
__device__ __forceinline__ int query_place(int d) {
  if constexpr (!kHasMma<T>) return d;
  const int word = d / 2 % 4;
  return d + 2 * ((word == 1) - (word == 2));
}

// Copies a query, rounded to T and padded with zeros to whole steps, to shared memory.
template <class T>
__device__ __forceinline__ void load_query(const DeviceSearch& p, int64_t q, T* shared) {
  const int dim = static_cast<int>(p.behaviours.dim), step = 4 * kVector16<T>;
  const int padded = (dim + step - 1) / step * step;
  for (int d = threadIdx.x; d < padded; d += blockDim.x) {
    const int64_t at = q * dim + d;
    shared[query_place<T>(d)] = d >= dim ? T{}
                                : p.query_is_float
                                    ? narrow<T>(static_cast<const float*>(p.query)[at])
                                    : static_cast<const T*>(p.query)[at];
  }
}

// Bytes of shared memory that load_query needs.
inline int query_bytes(int64_t dim, DType dtype) {
  return static_cast<int>((dim * size_of(dtype) + 63) / 64 * 64);
}

// Whether kAligned suits a search.
inline bool search_is_aligned(const DeviceSearch& p) {
  const Behaviours& b = p.behaviours;
  return aligned16(b.keys, b.key_row_stride, b.dim, b.dtype) && p.sequence_bytes % 16 == 0;
}

// kAligned: rows lie in whole aligned pieces of 16 bytes, and the query is in shared memory. Else
// both are read element by element.
template <class T, bool kAligned>
class TileScorer {
 public:
  __device__ TileScorer(const DeviceSearch& p, int64_t q, const SequenceView& view,
                        const T* shared_query, const SharedTimeMlp& mlp)
      : p_(p),
        view_(view),
        mlp_(mlp),
        shared_query_(shared_query),
        q_(q),
        now_(clock_time(p.clock, view.now)) {}

  // The behaviour of a tile that this lane scores.
  __device__ static int row() { return lane_index() % 4 * 8 + lane_index() / 4; }

  // The score of behaviour first + row(); false where it is not there. first < end <= the length.
  __device__ bool score(int first, int end, float* out) const {
    const Behaviours& b = p_.behaviours;
    const int m = first + row();
    const bool there = m < end && (!p_.filtered || is_there(p_, view_, m));
    if (!__any_sync(kAllLanes, there)) return false;
    const T* pieces[kTileGroups];  // this lane's first in rows g + 8 j
    bool known = true;
    if (b.ids) {
      const int64_t id = there ? b.ids[view_.position + m] : 0;
      known = is_row(p_, id);
      if (p_.check) device_check(known || !there, "ids must be from 0 to N - 1", "search");
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) {
        // Row g + 8 j of the tile is the one that lane 4 g + j scores.
        const int64_t row = __shfl_sync(kAllLanes, known ? id : 0, lane_index() / 4 * 4 + j);
        pieces[j] = piece(static_cast<const char*>(b.keys) + row * p_.row_bytes);
      }
    } else {
      const char* const keys = view_.keys;
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) {
        pieces[j] = piece(row_after(p_, keys, min(first + lane_index() / 4 + 8 * j, end - 1)));
      }
    }
    const bool readable = !b.ids || p_.table_rows > 0;
    const float dot = known && readable ? 0.0f : __int_as_float(0x7fc00000);
    const float product = readable ? dot_rows(pieces) : 0.0f;
    // Read late, for the sake of registers: other warps hide what it takes.
    const int64_t time = there ? time_of(p_, view_, m) : 0;
    const int32_t delta = clock_delta(p_.clock, clock_time(p_.clock, time), now_);
    *out = fmaf(p_.scale, dot + product,
                time_similarity(mlp_, b.mlp.hidden, time_phi(delta, p_.per_unit)));
    return there;
  }

 private:
  static constexpr int kPiece = kVector16<T>;
  static constexpr int kStep = 4 * kPiece;  // columns that a quad takes at a time
  using Sums = float[kTileGroups][kHasMma<T> ? 4 : 1];

  __device__ static const T* piece(const char* row) {
    return reinterpret_cast<const T*>(row + lane_index() % 4 * 16);
  }

  // Adds the products of this lane's pieces, at column d of the rows. kWhole: they lie inside them.
  template <bool kWhole>
  __device__ void add(const T* const (&pieces)[kTileGroups], int d, Sums& sums) const {
    uint4 key[kTileGroups];
#pragma unroll
    for (int j = 0; j < kTileGroups; ++j) {
      key[j] = kWhole ? __ldg(reinterpret_cast<const uint4*>(pieces[j]))
                      : load16<T, kAligned>(pieces[j], 0, p_.behaviours.dim - d);
    }
    if constexpr (kHasMma<T>) {
      const bool odd = lane_index() / 4 % 2 == 1;
      uint2 query;
      if constexpr (kAligned) {
        query = *reinterpret_cast<const uint2*>(shared_query_ + d + (odd ? kPiece / 2 : 0));
      } else {
        const uint4 piece = query_piece<T, false>(p_, q_, d);
        query = odd ? make_uint2(piece.y, piece.w) : make_uint2(piece.x, piece.z);
      }
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) {
        mma_16x8x16<T>(sums[j], key[j].x, key[j].y, key[j].z, key[j].w, query.x, query.y);
      }
    } else {
      float query[kPiece], values[kPiece];
      widen16<T>(kAligned ? *reinterpret_cast<const uint4*>(shared_query_ + d)
                          : query_piece<T, false>(p_, q_, d),
                 query);
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) {
        widen16<T>(key[j], values);
#pragma unroll
        for (int i = 0; i < kPiece; ++i) sums[j][0] = fmaf(values[i], query[i], sums[j][0]);
      }
    }
  }

  // Dot products of the query with rows g + 8 j, by the lanes of quad g; each returns that of
  // row() of its tile.
  __device__ float dot_rows(const T* (&pieces)[kTileGroups]) const {
    const int dim = static_cast<int>(p_.behaviours.dim);
    const int lane = lane_index() % 4;
    Sums sums = {};
    const auto step = [&](int columns) {
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) pieces[j] += columns;
    };
    int d = lane * kPiece;
    if constexpr (kAligned) {
      // Two steps at a time: eight loads a lane are in flight.
#pragma unroll 1
      for (int left = dim / (2 * kStep); left > 0; --left, d += 2 * kStep) {
        const T* next[kTileGroups];
#pragma unroll
        for (int j = 0; j < kTileGroups; ++j) next[j] = pieces[j] + kStep;
        add<true>(pieces, d, sums);
        add<true>(next, d + kStep, sums);
        step(2 * kStep);
      }
    }
#pragma unroll 1
    for (; d - lane * kPiece < dim; d += kStep, step(kStep)) add<false>(pieces, d, sums);
    if constexpr (kHasMma<T>) {
      float dots[kTileGroups];
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) dots[j] = sums[j][0] + sums[j][3];
      const float low = lane % 2 == 0 ? dots[0] : dots[1], high = lane % 2 == 0 ? dots[2] : dots[3];
      return lane < 2 ? low : high;
    } else {
      // Lane t of a quad ends with the whole sum of group t: each step halves what a lane holds.
      const bool odd = lane % 2 == 1, upper = lane >= 2;
      const float first = (odd ? sums[1][0] : sums[0][0]) +
                          __shfl_xor_sync(kAllLanes, odd ? sums[0][0] : sums[1][0], 1);
      const float second = (odd ? sums[3][0] : sums[2][0]) +
                           __shfl_xor_sync(kAllLanes, odd ? sums[2][0] : sums[3][0], 1);
      return (upper ? second : first) + __shfl_xor_sync(kAllLanes, upper ? first : second, 2);
    }
  }

  const DeviceSearch& p_;
  const SequenceView& view_;
  const SharedTimeMlp& mlp_;
  const T* shared_query_;
  int64_t q_;
  int32_t now_;
};

}  // namespace longclock
