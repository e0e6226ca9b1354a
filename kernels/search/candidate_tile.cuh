// SPDX-License-Identifier: Apache-2.0
// Products of candidates with keys on tensor cores. A warp holds its candidates in registers as
// rows of A, from the first key to the last, and multiplies them with 32 keys of a tile at a time,
// columns of B, which ldmatrix reads from shared memory: one such load feeds eight mma, four where
// rows of 16 bits have 512 bytes.
// A lane of C has two of every eight columns. Keys lie in shared memory in such an order that these
// are consecutive keys: a lane ends with all scores of one block of eight for each of its
// candidates, and no lane needs another one's.
// Rows of 16-byte pieces are swizzled, piece c of row r at place c ^ (r mod 8), so that neither the
// copies nor the matrix loads meet a bank twice.
#pragma once

#include "longclock/common/async_copy.cuh"
#include "longclock/common/mma.cuh"
#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/search/byte_rows.cuh"
#include "longclock/search/sweep_parts.h"

namespace longclock {

constexpr int kDelegateKeys = 8;  // of a block: what one lane scores of a warp's keys
constexpr int kWarpKeys = 32;
static_assert(kTileKeys == 2 * kWarpKeys);

// Candidates are rows of A, keys columns of B; registers of a lane count from 0. Checked against
// CuTe's layouts of the instructions by tests/cuda_emulator/tests/candidate_tile_test.cu.
struct Fragments {
  // Of the matrices that one load brings: the row of shared memory, and the piece of 16 bytes,
  // that a lane names. A: 16 candidates, a step of two pieces.
  LONGCLOCK_INLINE static constexpr int a_row(int lane) { return lane % 16; }
  LONGCLOCK_INLINE static constexpr int a_piece(int lane) { return lane / 16; }
  // B, 8 and 16 bits: 16 keys, a step of two pieces. B, 32 bits: 8 keys, two steps of two pieces.
  template <class T>
  LONGCLOCK_INLINE static constexpr int b_row(int lane) {
    return sizeof(T) <= 2 ? lane / 16 * 8 + lane % 8 : lane % 8;
  }
  template <class T>
  LONGCLOCK_INLINE static constexpr int b_piece(int lane) {
    return sizeof(T) <= 2 ? lane / 8 % 2 : lane / 8;
  }
  // C: the candidate and the column of register i.
  LONGCLOCK_INLINE static constexpr int c_candidate(int lane, int i) {
    return lane / 4 + i / 2 * 8;
  }
  LONGCLOCK_INLINE static constexpr int c_column(int lane, int i) { return lane % 4 * 2 + i % 2; }
};

// The row of shared memory of key `key` of a tile, and the key of a row. Of a warp's 32 keys, lane
// t of a quad gets the columns 2 t and 2 t + 1 of four times eight rows: keys 8 t to 8 t + 7.
LONGCLOCK_INLINE constexpr int row_of_key(int key) {
  return key / 32 * 32 + key % 8 / 2 * 8 + key / 8 % 4 * 2 + key % 2;
}
LONGCLOCK_INLINE constexpr int key_of_row(int row) {
  return row / 32 * 32 + row % 8 / 2 * 8 + row / 8 % 4 * 2 + row % 2;
}

// Bytes from the start of rows of kRowBytes to a piece.
template <int kRowBytes>
LONGCLOCK_INLINE constexpr int swizzled(int row, int piece) {
  return row * kRowBytes + (piece ^ row % 8) * 16;
}

// The address of the piece `pieces` after the one at `address`, which is swizzled and among the
// first of its row: before the largest power of two that divides `pieces`.
LONGCLOCK_INLINE constexpr uint32_t moved(uint32_t address, int pieces) {
  return (address ^ (pieces % 8 * 16u)) + pieces / 8 * 128u;
}

// The nearest number whose lower 13 bits are 0: what TF32 holds.
__device__ __forceinline__ uint32_t to_tf32(float value) {
  return (__float_as_uint(value) + 0x1000u) & 0xffffe000u;
}

// mma_16x8x16() of elements of int8, four to a register, with sums of int32: 16 x 32 by 32 x 8.
__device__ __forceinline__ void mma_16x8x32_int8(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                 uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// kRowBytes: of a row in shared memory, 128, 256 or 512.
template <class T, int kRowBytes>
class CandidateTile {
 public:
  static constexpr int kCandidateBytes = kRowBytes;  // of a candidate in shared memory
  // Groups of 16 candidates of a warp: as many as 128 registers hold, and four at most.
  static constexpr int kGroups = sizeof(T) == 4 ? 2 : kRowBytes == 512 ? 2 : 4;
  static constexpr int kWarpCandidates = 16 * kGroups;
  // Keys done together: with 32 bits all, so that splitting the candidates pays.
  static constexpr int kStepKeys = sizeof(T) == 4 ? 32 : 16;
  static constexpr int kSteps = kWarpKeys / kStepKeys;
  // Of them, those of a lane, for each of its candidates.
  static constexpr int kLaneKeys = kStepKeys / 4;

  // Scores without scale and time: of candidate `group`, `half` (8 further), the lane's keys.
  using Products = float[kGroups][2][kLaneKeys];

  // Calls f(group, half, at) for each of a lane's candidates, which is the one `at` after its
  // first.
  template <class F>
  __device__ static void for_each_candidate(const F& f) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      f(group, 0, group * 16);
      f(group, 1, group * 16 + 8);
    }
  }

  // From kWarpCandidates swizzled rows of shared memory.
  __device__ void load(uint32_t rows) {
    const int lane = lane_index();
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int k = 0; k < kColumnSteps; ++k) {
        const int row = group * 16 + Fragments::a_row(lane);
        load_matrices(a_[group][k],
                      rows + swizzled<kRowBytes>(row, 2 * k + Fragments::a_piece(lane)));
      }
    }
  }

  // Where this lane reads, from the start of a warp's keys.
  __device__ static uint32_t lane_place() {
    const int lane = lane_index();
    return swizzled<kRowBytes>(Fragments::b_row<T>(lane), Fragments::b_piece<T>(lane));
  }

  // With the keys of step `step` of a warp's keys. row: their start in swizzled shared memory, at a
  // multiple of kRowBytes, and lane_place().
  __device__ void multiply(uint32_t row, int step, Products& out) const {
    Sums sums = {};
    add_products(row, step, sums);
    arrange(sums, out);
  }

  // The same in two steps, for rows that come some columns after the others.
  using Sums = SumOf<T>[kGroups][kStepKeys / 8][4];
  __device__ void add_products(uint32_t row, int step, Sums& c) const {
    if constexpr (sizeof(T) <= 2) {
#pragma unroll
      for (int k = 0; k < kColumnSteps; ++k) {
        uint32_t b[4];
        load_matrices(b, moved(row, 2 * k) + step * kStepKeys * kRowBytes);
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          const uint32_t (&a)[4] = a_[group][k];
          add(c[group][0], a, b[0], b[1]);
          add(c[group][1], a, b[2], b[3]);
        }
      }
    } else {
      add_products_fp32(row, c);
    }
  }
  // Sums as registers of C have them, by candidates and keys.
  __device__ static void arrange(const Sums& c, Products& out) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int i = 0; i < kLaneKeys; ++i) {
        out[group][0][i] = static_cast<float>(c[group][i / 2][i % 2]);
        out[group][1][i] = static_cast<float>(c[group][i / 2][2 + i % 2]);
      }
    }
  }

 private:
  static constexpr int kColumnSteps = kRowBytes / 32;  // of an mma

  __device__ static void add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_16x8x16<T>(c, a[0], a[1], a[2], a[3], b0, b1);
  }
  __device__ static void add(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_16x8x32_int8(c, a[0], a[1], a[2], a[3], b0, b1);
  }

  // Three products of TF32: x y = X Y + X y' + x' Y with X the nearest TF32 to x and x' the rest,
  // which leaves out 2^-21 of it: x' y', and what TF32 cuts off the rests. The small ones first.
  // TF32 is the upper 19 bits of a float on all hardware so far.
  __device__ void add_products_fp32(uint32_t row, Sums& c) const {
#pragma unroll
    for (int pair = 0; pair < kColumnSteps / 2; ++pair) {
      uint32_t loaded[kStepKeys / 8][4];
#pragma unroll
      for (int n = 0; n < kStepKeys / 8; ++n) {
        load_matrices(loaded[n], moved(row, 4 * pair) + n * 8 * kRowBytes);
      }
#pragma unroll
      for (int k = 0; k < 2; ++k) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          uint32_t a[4], a_rest[4];
          split(a_[group][2 * pair + k], a, a_rest);
#pragma unroll
          for (int n = 0; n < kStepKeys / 8; ++n) {
            uint32_t b[2], b_rest[2];
            split(loaded[n][2 * k], b[0], b_rest[0]);
            split(loaded[n][2 * k + 1], b[1], b_rest[1]);
            float (&sum)[4] = c[group][n];
            mma_16x8x8_tf32(sum, a_rest, b[0], b[1]);
            mma_16x8x8_tf32(sum, a, b_rest[0], b_rest[1]);
            mma_16x8x8_tf32(sum, a, b[0], b[1]);
          }
        }
      }
    }
  }

  __device__ static void split(uint32_t bits, uint32_t& near, uint32_t& rest) {
    const float value = __uint_as_float(bits);
    near = to_tf32(value);
    rest = __float_as_uint(value - __uint_as_float(near));
  }
  __device__ static void split(const uint32_t (&bits)[4], uint32_t (&near)[4],
                               uint32_t (&rest)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint32_t value = bits[i];
      asm volatile("" : "+r"(value));
      split(value, near[i], rest[i]);
    }
  }

 protected:
  uint32_t a_[kGroups][kColumnSteps][4];
};

}  // namespace longclock
