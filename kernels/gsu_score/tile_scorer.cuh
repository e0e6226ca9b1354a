// SPDX-License-Identifier: Apache-2.0
// Scores of 32 behaviours of one query, by one warp. Keys go from global memory to registers in
// pieces of 16 bytes: the four lanes of a quad read 64 bytes of a row, the eight quads eight rows,
// so that a request is 16 full sectors. Four such groups of rows are in flight at a time.
// 16-bit keys go through tensor cores, with rows of keys as A and the query in all eight columns of
// B: every lane of a quad then holds its row's dot product, and no lane needs another's. Products
// do not depend on the order of columns, so a piece of eight elements feeds two mma as it lies.
#pragma once

#include "../common/mma.cuh"
#include "../common/vector16.cuh"
#include "../time_similarity/time_term.cuh"
#include "search.cuh"

namespace longclock {

constexpr int kTileRows = kWarp;
constexpr int kTileGroups = 4;      // of eight rows
constexpr int kQueryBytes = 16384;  // of a query in shared memory, at most

// Copies a query, rounded to T and padded with zeros to whole steps, to shared memory.
template <class T>
__device__ __forceinline__ void load_query(const DeviceSearch& p, int64_t q, T* shared) {
  const int dim = static_cast<int>(p.behaviours.dim), step = 4 * kVector16<T>;
  const int padded = (dim + step - 1) / step * step;
  for (int d = threadIdx.x; d < padded; d += blockDim.x) {
    const int64_t at = q * dim + d;
    shared[d] = d >= dim           ? T{}
                : p.query_is_float ? narrow<T>(static_cast<const float*>(p.query)[at])
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
  return aligned16(b.keys, b.key_row_stride, b.dim, b.dtype) &&
         p.key_sequence_stride * size_of(b.dtype) % 16 == 0;
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
        now_(clock_time(view.now, static_cast<int32_t>(p.behaviours.period))),
        per_unit_(1.0 / p.behaviours.mlp.unit) {}

  // The behaviour of a tile that this lane scores.
  __device__ static int row() { return lane_index() % 4 * 8 + lane_index() / 4; }

  // The score of behaviour first + row(); false where it is not there. first < end <= the length.
  __device__ bool score(int first, int end, float* out) const {
    const Behaviours& b = p_.behaviours;
    const int m = first + row();
    int64_t time = 0;
    const bool there = m < end && is_there(b, view_.position + m, view_.now, &time);
    if (!__any_sync(kAllLanes, there)) return false;
    float dot = 0.0f;
    if (!b.ids) {
      const T* const keys = static_cast<const T*>(b.keys) + view_.key_offset;
      const T* rows[kTileGroups];
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) {
        rows[j] = keys + int64_t{min(first + lane_index() / 4 + 8 * j, end - 1)} * b.key_row_stride;
      }
      dot = dot_rows(rows);
    } else {
      const int64_t id = there ? b.ids[view_.position + m] : 0;
      const bool known = id >= 0 && id < p_.table_rows;
      if (p_.check) device_check(known || !there, "ids must be from 0 to N - 1", "search");
      if (p_.table_rows > 0) {
        const T* rows[kTileGroups];
#pragma unroll
        for (int j = 0; j < kTileGroups; ++j) {
          // Row g + 8 j of the tile is the one that lane 4 g + j scores.
          const int64_t row = __shfl_sync(kAllLanes, known ? id : 0, lane_index() / 4 * 4 + j);
          rows[j] = static_cast<const T*>(b.keys) + row * b.key_row_stride;
        }
        dot = dot_rows(rows);
      }
      if (!known) dot = __int_as_float(0x7fc00000);
    }
    const int32_t period = static_cast<int32_t>(b.period);
    const int32_t delta = circular_delta(clock_time(time, period), now_, period);
    *out = fmaf(p_.scale, dot, time_similarity(mlp_, time_phi(delta, per_unit_)));
    return there;
  }

 private:
  __device__ uint4 query_piece(int d) const {
    if constexpr (kAligned) return *reinterpret_cast<const uint4*>(shared_query_ + d);
    const int64_t dim = p_.behaviours.dim;
    if (!p_.query_is_float) {
      return load16<T, false>(static_cast<const T*>(p_.query) + q_ * dim, d, dim);
    }
    const float* query = static_cast<const float*>(p_.query) + q_ * dim;
    float values[kVector16<T>];
#pragma unroll
    for (int i = 0; i < kVector16<T>; ++i) values[i] = d + i < dim ? query[d + i] : 0.0f;
    return narrow16<T>(values);
  }

  // Dot products of the query with rows g + 8 j, by the lanes of quad g; each returns that of
  // row() of its tile.
  __device__ float dot_rows(const T* const (&rows)[kTileGroups]) const {
    const int dim = static_cast<int>(p_.behaviours.dim);
    const int lane = lane_index() % 4;
    if constexpr (kHasMma<T>) {
      float low[4] = {}, high[4] = {};  // rows g and g + 8; g + 16 and g + 24
#pragma unroll (kAligned ? 2 : 1)
      for (int d = lane * kVector16<T>; d - lane * kVector16<T> < dim; d += 4 * kVector16<T>) {
        uint4 key[kTileGroups];
#pragma unroll
        for (int j = 0; j < kTileGroups; ++j) key[j] = load16<T, kAligned>(rows[j], d, dim);
        const uint4 query = query_piece(d);
        mma_16x8x16<T>(low, key[0].x, key[1].x, key[0].y, key[1].y, query.x, query.y);
        mma_16x8x16<T>(high, key[2].x, key[3].x, key[2].y, key[3].y, query.x, query.y);
        mma_16x8x16<T>(low, key[0].z, key[1].z, key[0].w, key[1].w, query.z, query.w);
        mma_16x8x16<T>(high, key[2].z, key[3].z, key[2].w, key[3].w, query.z, query.w);
      }
      const float even = lane < 2 ? low[0] : high[0], odd = lane < 2 ? low[2] : high[2];
      return lane % 2 == 0 ? even : odd;
    } else {
      float sums[kTileGroups] = {};
#pragma unroll (kAligned ? 2 : 1)
      for (int d = lane * kVector16<T>; d - lane * kVector16<T> < dim; d += 4 * kVector16<T>) {
        float query[kVector16<T>], key[kVector16<T>];
        widen16<T>(query_piece(d), query);
        uint4 pieces[kTileGroups];
#pragma unroll
        for (int j = 0; j < kTileGroups; ++j) pieces[j] = load16<T, kAligned>(rows[j], d, dim);
#pragma unroll
        for (int j = 0; j < kTileGroups; ++j) {
          widen16<T>(pieces[j], key);
#pragma unroll
          for (int i = 0; i < kVector16<T>; ++i) sums[j] = fmaf(key[i], query[i], sums[j]);
        }
      }
      // Lane t of a quad ends with the whole sum of group t: each step halves what a lane holds.
      const bool odd = lane % 2 == 1, upper = lane >= 2;
      const float first =
          (odd ? sums[1] : sums[0]) + __shfl_xor_sync(kAllLanes, odd ? sums[0] : sums[1], 1);
      const float second =
          (odd ? sums[3] : sums[2]) + __shfl_xor_sync(kAllLanes, odd ? sums[2] : sums[3], 1);
      return (upper ? second : first) + __shfl_xor_sync(kAllLanes, upper ? first : second, 2);
    }
  }

  const DeviceSearch& p_;
  const SequenceView& view_;
  const SharedTimeMlp& mlp_;
  const T* shared_query_;
  int64_t q_;
  int32_t now_;
  double per_unit_;
};

}  // namespace longclock
