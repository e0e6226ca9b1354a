// SPDX-License-Identifier: Apache-2.0
// The forward of esu_attention on tensor cores, for rows of 16 bits: one block a query, group of
// four heads and part of behaviours. All rows of a stage, of a query with K <= 128 all there are,
// are on their way to shared memory at once, and the time terms are computed meanwhile, a thread a
// behaviour. Then a warp multiplies its own rows with u, behaviours being rows of mma and heads
// columns; the warps agree on the largest alphas, and leave their weights to each other in slices
// of 16 bits; and a warp multiplies its own columns of all rows with them. So no sum of columns is
// ever added up over warps.
#include "longclock/esu_attention/esu_attention_mma.h"
#include "longclock/esu_attention/esu_attention_softmax.cuh"

namespace longclock {
namespace {

// Of a multiprocessor, by registers.
template <int kRowBytes>
constexpr int kBlocks = kRowBytes <= 256   ? 6
                        : kRowBytes == 512 ? 4
                                           : 2;

// u of the group's heads to shared memory, swizzled, padded with zeros. By all threads.
template <class T, int kRowBytes, bool kAligned>
__device__ __forceinline__ void fill_u(const DeviceEsuAttentionParams& p, const EsuPlace& place,
                                       char* to) {
  const int head = warp_index();
  for (int quad = lane_index(); quad < kRowBytes / 8; quad += kWarp) {
    const float4 u = load_u<T, kAligned>(p, place.query, place.group * kEsuHeads + head, quad * 4);
    *reinterpret_cast<uint2*>(to + swizzled<kRowBytes>(head, quad / 2) + quad % 2 * 8) =
        narrow4<T>(u);
  }
}

// The products of the warp's rows with u, which begins at `u`: of lane 4 g + t, c[i] has rows
// 16 i + g and 16 i + g + 8 and heads 2 t and 2 t + 1, mod 4.
template <class T, int kRowBytes, int kRowTiles>
__device__ __forceinline__ void multiply_u(const EsuWarpRows& rows, uint32_t u,
                                           float (&c)[kRowTiles][4]) {
  const int head = lane_index() % kEsuHeads;
  uint32_t b_row = u + swizzled<kRowBytes>(head, lane_index() / 8);
  uint32_t a_row[kRowTiles];
#pragma unroll
  for (int tile = 0; tile < kRowTiles; ++tile) a_row[tile] = a_rows<kRowBytes>(rows, 16 * tile);
#pragma unroll 2
  for (int step = 0; step < kRowBytes; step += 128) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t b[4];
      load_matrices(b, b_row + step + half * 64);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
#pragma unroll
        for (int tile = 0; tile < kRowTiles; ++tile) {
          uint32_t a[4];
          load_matrices(a, (a_row[tile] ^ ((2 * half + k) * 32)) + step);
          mma_16x8x16<T>(c[tile], a[0], a[1], a[2], a[3], b[2 * k], b[2 * k + 1]);
        }
      }
    }
  }
}

template <class T, int kRowBytes, bool kAligned>
__device__ __forceinline__ void attend_part(const DeviceEsuAttentionParams& p, const EsuGeometry& g,
                                            const EsuLayout& m) {
  using Stage = EsuStage<kRowBytes>;
  __shared__ EsuTime time;
  __shared__ EsuBlockSums sums;
  __shared__ EsuPlace place;
  if (threadIdx.x == 0) place = esu_place(p, g);
  __syncthreads();
  const uint32_t memory = shared_address(esu_memory);
  const int clocks = p.behaviours.time.clocks;
  const int first_row = warp_index() * Stage::kWarpRows;
  const EsuWeights<T> weights = {esu_memory + m.weights, (m.rows + 15) / 16 * 16};
  EsuWarpRows rows = {memory + first_row * kRowBytes, first_row, 0,
                      reinterpret_cast<uint4*>(esu_memory + m.weights) + first_row};
#pragma unroll 1
  for (int c = 1; c < clocks; ++c) m.sums_of(c)[threadIdx.x] = zero4();
  EsuSoftmax softmax;
  float columns[Stage::kColumnTiles][4] = {};
  bool any = false;
  const int count = part_count(p, g);
  for (int begin = 0; begin < count; begin += Stage::kRows) {
    const EsuOwnRow own = begin_stage<T, kRowBytes, kAligned>(p, place, begin, count, rows);
    if (begin == 0) {
      load_time(p, g, place.query, &time);
      fill_u<T, kRowBytes, kAligned>(p, place, esu_memory + m.u);
      __syncthreads();
    }
    const float s = see_moment(p, g, own, time, [&](int c, int32_t, const float4& phi) {
      if (own.exists) (c > 0 ? m.phi_of(c)[own.row] : weights.floats_of(own.row)) = phi;
    });
    if (!own.exists && lane_index() < Stage::kWarpRows && own.row < weights.rows) {
      weights.floats_of(own.row) = zero4();
    }
    const uint32_t valid = __ballot_sync(kAllLanes, own.position >= 0);
    wait_for_copies<0>();
    __syncwarp();
    float c[Stage::kRowTiles][4] = {}, alphas[2 * Stage::kRowTiles];
    if (rows.count > 0) multiply_u<T, kRowBytes>(rows, memory + m.u, c);
    find_alphas(c, s, valid, alphas, sums.tops[warp_index()]);
    any = __syncthreads_or(valid != 0) || any;
    softmax.rise(sums.tops, begin == 0);
    if (begin > 0) fade_columns(columns, softmax.fade);
    weigh<T>(alphas, first_row, rows.count, m, clocks, weights, softmax);
    __syncthreads();
    weights.template multiply<kRowBytes>(memory, min(Stage::kRows, count - begin), columns);
  }
  softmax.add_up(m, clocks, sums);
  __syncthreads();
  constexpr float kScale = 1.0f / kWeightScale<T>;
  float* const context = reinterpret_cast<float*>(esu_memory);
  put_sums(columns, {kScale, kScale}, kRowBytes / 2, context);
  __syncthreads();
  const float top = __shfl_sync(kAllLanes, softmax.top, esu_head_lane(lane_index() % kEsuHeads));
  write_part(
      p, g, place, {0, static_cast<int>(p.dim)}, sums, top, any,
      [&](int head, int i) { return context[head * (kRowBytes / 2) + i]; },
      [&](int c) { return m.sums_of(c); });
}

template <class T, int kRowBytes, bool kAligned>
__global__ void __launch_bounds__(kEsuThreads, kBlocks<kRowBytes>)
    esu_attention_mma_kernel(const __grid_constant__ DeviceEsuAttentionParams p,
                             const __grid_constant__ EsuGeometry g,
                             const __grid_constant__ EsuLayout m) {
  if constexpr (kHasAsyncCopy) attend_part<T, kRowBytes, kAligned>(p, g, m);
}

}  // namespace

int plan_esu_mma(const DeviceEsuAttentionParams& p, bool* supported) {
  *supported = p.behaviours.dtype != DType::kFloat32 && p.dim <= kEsuMmaColumns;
  if (!*supported) return cudaSuccess;
  return has_async_copy(esu_attention_mma_kernel<Float16, 256, true>, supported);
}

int launch_esu_mma(const DeviceEsuAttentionParams& p, const EsuGeometry& g, bool aligned,
                   int64_t count, CudaStream stream) {
  return with_esu_stage(p, aligned, [&](auto stage) {
    using S = decltype(stage);
    return launch_esu_blocks(esu_attention_mma_kernel<typename S::Type, S::kRowBytes, S::kAligned>,
                             p, g, esu_layout<typename S::Type, S::kRowBytes>(p), count, stream);
  });
}

}  // namespace longclock
