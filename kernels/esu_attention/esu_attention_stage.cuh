// SPDX-License-Identifier: Apache-2.0
// Stages of rows of z in shared memory, as the kernels on tensor cores read them: each warp brings
// the rows of its own behaviours, whatever tables they lie in, all of them at once. Rows are padded
// with zeros to whole 128 bytes; piece c of 16 bytes of row r lies at place c ^ (r mod 8), so that
// neither the copies nor the matrix loads, along rows or across them, meet a bank twice.
#pragma once

#include "longclock/common/async_copy.cuh"
#include "longclock/common/mma.cuh"
#include "longclock/esu_attention/esu_attention_rows.cuh"
#include "longclock/search/candidate_tile.cuh"

namespace longclock {

// kRowBytes: of a row in shared memory, 128 to 1024.
template <int kRowBytes>
struct EsuStage {
  static constexpr int kWarpRows = kRowBytes <= 256 ? 32 : 16;
  static constexpr int kRows = kRowBytes == 1024 ? 3 * kWarpRows : kEsuWarps * kWarpRows;
  static constexpr int kRowTiles = kWarpRows / 16;      // of an mma, of a warp's rows
  static constexpr int kColumnTiles = kRowBytes / 128;  // of 16 columns, of a warp
};

// The rows of this warp in shared memory.
struct EsuWarpRows {
  uint32_t begin;  // their address
  int first;       // of the stage
  int count;
  uint4* addresses;  // of the rows in a table, kWarpRows
};

// The one of them whose behaviour this lane sees to.
struct EsuOwnRow {
  int row;           // of the stage
  bool exists;       // has a place among the stage's rows
  int64_t position;  // of its behaviour, below 0 where it does not count
  bool known;        // all of its rows are in their tables
};

// What a lane tells the warp of its row in a table: where it is, or zeros.
struct EsuSource {
  const void* row;
  int64_t bytes;  // of a piece: 16, or 0
};

// Begins to copy columns [first, first + dim) of the warp's rows: lane i has row i in the table,
// none for zeros. somewhere: any address of global memory.
template <class T, int kRowBytes, bool kAligned>
__device__ __forceinline__ void copy_columns(const T* row, int first, int dim,
                                             const EsuWarpRows& to, const void* somewhere) {
  const int lane = lane_index();
  auto* const sources = reinterpret_cast<EsuSource*>(to.addresses);
  if (lane < to.count) sources[lane] = {row == nullptr ? somewhere : row, row == nullptr ? 0 : 16};
  __syncwarp();
  if constexpr (kAligned) {
    constexpr int kLanes = kRowBytes >= 512 ? 32 : kRowBytes / 16;  // of a row
    constexpr int kTurn = 8;  // rows whose places differ by whole rows from turn to turn
    constexpr int kSteps = kTurn * kLanes / kWarp;
    const int own = lane % kLanes, pieces = dim / kVector16<T>;
    for (int piece = own; piece < pieces; piece += kLanes) {
      uint32_t places[kSteps];
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        places[i] = to.begin + swizzled<kRowBytes>(i * (kWarp / kLanes) + lane / kLanes,
                                                   first / kVector16<T> + piece);
      }
      const EsuSource* source = sources + lane / kLanes;
#pragma unroll 1
      for (int left = to.count - lane / kLanes; left > 0; left -= kTurn) {
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          if (i * (kWarp / kLanes) < left) {
            const EsuSource from = source[i * (kWarp / kLanes)];
            copy16_async(places[i], static_cast<const char*>(from.row) + piece * 16,
                         static_cast<int>(from.bytes));
          }
          places[i] += kTurn * kRowBytes;
        }
        source += kTurn;
      }
      if constexpr (kRowBytes <= 512) break;
    }
  } else {
#pragma unroll 2
    for (int i = 0; i < to.count; ++i) {
      const EsuSource from = sources[i];
      for (int c = lane; c < dim; c += kWarp) {
        const uint16_t bits =
            from.bytes == 0 ? 0 : __ldg(static_cast<const uint16_t*>(from.row) + c);
        const int at = first + c;
        asm volatile(
            "st.shared.b16 [%0], %1;" ::"r"(to.begin + swizzled<kRowBytes>(i, at / 8) + at % 8 * 2),
            "h"(bits)
            : "memory");
      }
    }
  }
  __syncwarp();
}

// Begins to bring the warp's rows: a lane has the behaviour `in_part` at `position`, below 0 where
// there is nothing to read. Returns whether all of its rows are known.
template <class T, int kRowBytes, bool kAligned>
__device__ __forceinline__ bool bring_rows(const DeviceEsuAttentionParams& p, const EsuPlace& place,
                                           int in_part, int64_t position, const EsuWarpRows& to) {
  const Behaviours& b = p.behaviours;
  const bool valid = position >= 0;
  const int64_t begin = valid ? find_row(p, place, in_part, position) : kInvalidRow;
  bool known = begin != kMissingRow;
  const T* const z = static_cast<const T*>(b.keys);
  int column = static_cast<int>(b.dim);
  copy_columns<T, kRowBytes, kAligned>(begin < 0 ? nullptr : z + begin, 0, column, to, p.u);
#pragma unroll 1
  for (int f = 0; f < b.feature_count; ++f) {
    const Feature& feature = b.features[f];
    const int64_t row = valid ? find_feature(p, feature, position) : -1;
    known = known && (!valid || row >= 0);
    const int dim = static_cast<int>(feature.dim);
    copy_columns<T, kRowBytes, kAligned>(
        row < 0 ? nullptr : static_cast<const T*>(feature.keys) + row * feature.row_stride, column,
        dim, to, p.u);
    column += dim;
  }
  if (const int rest = kRowBytes / 2 - column; rest > 0) {
    copy_columns<T, kRowBytes, kAligned>(nullptr, column, rest, to, p.u);
  }
  end_copy_group();
  return known;
}

// Begins the stage of behaviours [begin, count) of the part: the warp's rows are on their way.
template <class T, int kRowBytes, bool kAligned>
__device__ __forceinline__ EsuOwnRow begin_stage(const DeviceEsuAttentionParams& p,
                                                 const EsuPlace& place, int begin, int count,
                                                 EsuWarpRows& rows) {
  using Stage = EsuStage<kRowBytes>;
  const int stage_rows = min(Stage::kRows, count - begin);
  rows.count = max(min(stage_rows - rows.first, Stage::kWarpRows), 0);
  EsuOwnRow own;
  own.row = rows.first + lane_index();
  own.exists = lane_index() < rows.count;
  own.position = find_position(p, place, begin + own.row, own.exists ? count : 0);
  if (begin > 0) __syncthreads();  // the rows of the stage before have been read
  own.known = bring_rows<T, kRowBytes, kAligned>(p, place, begin + own.row, own.position, rows);
  return own;
}

// s() of the lane's behaviour, NaN where a row of it is not known. see(c, delta, phi) gets what
// each clock sees, zeros where there is no behaviour.
template <class See>
__device__ __forceinline__ float see_moment(const DeviceEsuAttentionParams& p, const EsuGeometry& g,
                                            const EsuOwnRow& own, const EsuTime& time,
                                            const See& see) {
  if (own.position < 0) {
#pragma unroll 1
    for (int c = 0; c < p.behaviours.time.clocks; ++c) see(c, 0, zero4());
    return 0.0f;
  }
  const float s = see_clocks<1>(p, g, own.position, time, see);
  return own.known ? s : __int_as_float(0x7fc00000);
}

// Where a lane reads 16 rows of the warp for mma as its A: those past the last one are the last.
template <int kRowBytes>
__device__ __forceinline__ uint32_t a_rows(const EsuWarpRows& rows, int first) {
  const int lane = lane_index(), row = min(first + lane % 16, rows.count - 1);
  return rows.begin + swizzled<kRowBytes>(row, lane / 16);
}

// The head of a quad's four that a lane works on, of the two that mma leaves it.
__device__ __forceinline__ bool esu_is_upper() { return lane_index() % 4 >= 2; }
__device__ __forceinline__ int esu_lane_head() {
  return lane_index() % 2 * 2 + (esu_is_upper() ? 1 : 0);
}
// The other way round: the lane of a quad that works on a head.
__device__ __forceinline__ int esu_head_lane(int head) { return head % 2 * 2 + head / 2; }

// A value of fp32 in slices of 16 bits, whose sum has 22 of its bits or more: the nearest number of
// 16 bits, that of the rest, and so on.
template <class T>
constexpr int kSlices = __is_same(T, Float16) ? 2 : 3;
template <class T>
__device__ __forceinline__ void split(float value, uint32_t (&slices)[kSlices<T>]) {
#pragma unroll
  for (uint32_t& slice : slices) {
    const T near = narrow<T>(value);
    slice = near.bits;
    value -= widen(near);
  }
}

// e^x for x <= 0, off by 2^-22 at most.
__device__ __forceinline__ float exp_negative(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * 1.44269504f));
  return result;
}

// What multiplies weights before they are split: of fp16 the rest of a small one would be lost.
template <class T>
constexpr float kWeightScale = __is_same(T, Float16) ? 32768.0f : 1.0f;

// Weights of four heads of a stage's behaviours in shared memory, as B of mma: of a behaviour 16
// bytes, slices 0 and 1 of the heads, and in another plane of bf16 slice 2.
template <class T>
struct EsuWeights {
  static constexpr int kPlanes = kSlices<T> - 1;
  LONGCLOCK_INLINE static constexpr int bytes(int rows) { return kPlanes * rows * 16; }

  char* memory;
  int rows;  // a multiple of 16

  // What lies in the place of a behaviour's weights before they do.
  __device__ __forceinline__ float4& floats_of(int row) const {
    return *reinterpret_cast<float4*>(memory + row * 16);
  }

  // Of a behaviour: by the lanes of a quad, each its head's.
  __device__ __forceinline__ void put(int row, float weight) const {
    uint32_t slices[kSlices<T>];
    split<T>(weight, slices);
    const bool upper = esu_is_upper();
    const uint32_t got = __shfl_xor_sync(kAllLanes, upper ? slices[0] : slices[1], 2);
    uint32_t* const to = reinterpret_cast<uint32_t*>(memory + row * 16) + lane_index() % 4;
    *to = upper ? got | slices[1] << 16 : slices[0] | got << 16;
    if constexpr (kPlanes == 2) {
      const uint32_t other = __shfl_xor_sync(kAllLanes, slices[2], 2);
      to[rows * 4] = upper ? 0 : slices[2] | other << 16;
    }
  }

  // sums[j] += columns [16 (warp + 4 j), 16 (warp + 4 j + 1)) of the products of the stage's rows
  // [0, count), which begin at `z`, with the weights: of lane 4 g + t rows g and g + 8 are columns,
  // and 2 t, 2 t + 1 heads in slices.
  template <int kRowBytes, int kColumnTiles>
  __device__ __forceinline__ void multiply(uint32_t z, int count,
                                           float (&sums)[kColumnTiles][4]) const {
    const int lane = lane_index();
    const int lane_row = lane / 16 * 8 + lane % 8;
    const int lane_piece = 2 * warp_index() + lane / 8 % 2;
    uint32_t of_lane = shared_address(memory) + lane % 16 * 16;
    if constexpr (kPlanes == 2) of_lane += lane / 16 * rows * 16;
    const auto add = [&](int k, uint32_t row) {
      uint32_t b[2 * kPlanes];
      load_turned(b, of_lane + k * 16);
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        uint32_t a[4];
        load_turned(a, row + j * 128);
#pragma unroll
        for (int plane = 0; plane < kPlanes; ++plane) {
          mma_16x8x16<T>(sums[j], a[0], a[1], a[2], a[3], b[2 * plane], b[2 * plane + 1]);
        }
      }
    };
    uint32_t row = z + swizzled<kRowBytes>(lane_row, lane_piece);
    int k = 0;
#pragma unroll 1
    for (; k + 32 <= count; k += 32, row += 32 * kRowBytes) {
      add(k, row);
      add(k + 16, row + 16 * kRowBytes);
    }
#pragma unroll 1
    for (; k < count; k += 16) {  // those past the last row are the last
      add(k, z + swizzled<kRowBytes>(min(k + lane_row, count - 1), lane_piece));
    }
  }
};

// Lets the sums that multiply() adds to fade, each head's by its lanes' `fade`.
template <int kColumnTiles>
__device__ __forceinline__ void fade_columns(float (&sums)[kColumnTiles][4], float fade) {
  const float other = __shfl_xor_sync(kAllLanes, fade, 2);
  const bool upper = esu_is_upper();
  const float by[2] = {upper ? other : fade, upper ? fade : other};
#pragma unroll
  for (auto& tile : sums) {
#pragma unroll
    for (int i = 0; i < 4; ++i) tile[i] *= by[i % 2];
  }
}

// Brings what multiply() leaves to memory, sums[head * stride + column]: slices 0 and 1 added up,
// by `scale` of the lane's heads.
template <int kColumnTiles>
__device__ __forceinline__ void put_sums(const float (&sums)[kColumnTiles][4],
                                         const float (&scale)[2], int stride, float* out) {
  const int lane = lane_index(), quad_lane = lane % 4;
  const bool upper = esu_is_upper();  // has slice 1, and takes the upper 8 columns
#pragma unroll
  for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float sent = upper ? sums[j][i] : sums[j][2 + i];
      const float kept = upper ? sums[j][2 + i] : sums[j][i];
      const int column = 16 * (warp_index() + 4 * j) + lane / 4 + (upper ? 8 : 0);
      out[(quad_lane % 2 * 2 + i) * stride + column] =
          (kept + __shfl_xor_sync(kAllLanes, sent, 2)) * scale[i];
    }
  }
}

}  // namespace longclock
