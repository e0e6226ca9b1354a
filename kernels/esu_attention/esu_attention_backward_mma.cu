// SPDX-License-Identifier: Apache-2.0
// The backward of esu_attention on tensor cores, in the forward's layout: alpha is computed again,
// of the same product as what the gradient of the context has of a row. z's gradient is a product
// of a warp's own rows, u's one of its own columns, with what all warps leave of their rows.
#include "longclock/esu_attention/esu_attention_gradients.cuh"
#include "longclock/esu_attention/esu_attention_mma.h"

namespace longclock {
namespace {

// u's gradient of a stage: ds of all rows is shared, of fp16 brought to one scale, which the sums
// of the stages before follow. exponent: of that scale, of the lane's head.
template <class T, int kRowBytes, int kRows>
__device__ __forceinline__ void add_u_grad(const float (&ds)[kRows], int first_row, int count,
                                           uint32_t memory, int stage_rows,
                                           const EsuWeights<T>& weights,
                                           uint32_t (&largest)[kEsuWarps][kEsuHeads], int& exponent,
                                           float (&columns)[kRowBytes / 128][4]) {
  if constexpr (__is_same(T, Float16)) {
    uint32_t mine = 0;
#pragma unroll
    for (float each : ds) mine = max(mine, magnitude(each));
#pragma unroll
    for (int offset = 4; offset < kWarp; offset *= 2) {
      mine = max(mine, __shfl_xor_sync(kAllLanes, mine, offset));
    }
    if (lane_index() < kEsuHeads) largest[warp_index()][esu_lane_head()] = mine;
    __syncthreads();
#pragma unroll
    for (const auto& each : largest) mine = max(mine, each[esu_lane_head()]);
    const int before = exponent;
    exponent = min(exponent, scale_exponent(mine));
    fade_columns(columns, power_of(max(127 + exponent - before, 0)));
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i / 2 * 16 >= count) continue;
    weights.put(first_row + 8 * i + lane_index() / 4, ds[i] * power_of(exponent));
  }
  __syncthreads();
  weights.template multiply<kRowBytes>(memory, stage_rows, columns);
}

template <class T, int kRowBytes, bool kAligned>
__device__ __forceinline__ void grade_part(const DeviceEsuAttentionBackwardParams& b,
                                           const EsuGeometry& g, const EsuGradLayout& m) {
  using Stage = EsuStage<kRowBytes>;
  __shared__ EsuTime time;
  __shared__ EsuGradHeads heads;
  __shared__ uint32_t largest[kEsuWarps][kEsuHeads];
  __shared__ EsuPlace place;
  const DeviceEsuAttentionParams& p = b.forward;
  if (threadIdx.x == 0) place = esu_place(p, g);
  __syncthreads();
  const uint32_t memory = shared_address(esu_memory);
  const int first_row = warp_index() * Stage::kWarpRows;
  const EsuVectors<T, kRowBytes> vectors = {esu_memory + m.vectors,
                                            reinterpret_cast<float*>(esu_memory + m.values)};
  const EsuWeights<T> weights = {esu_memory + m.weights, (m.rows + 15) / 16 * 16};
  EsuWarpRows rows = {memory + first_row * kRowBytes, first_row, 0,
                      reinterpret_cast<uint4*>(esu_memory + m.weights) + first_row};
  float columns[Stage::kColumnTiles][4] = {};
  int exponent = __is_same(T, Float16) ? 253 : 127;
  const int count = part_count(p, g);
  for (int begin = 0; begin < count; begin += Stage::kRows) {
    const EsuOwnRow own = begin_stage<T, kRowBytes, kAligned>(p, place, begin, count, rows);
    if (begin == 0) {
      load_time(p, g, place.query, &time);
      fill_heads<T, kRowBytes, kAligned>(b, place, vectors, heads);
      __syncthreads();
    }
    float4 gain = zero4();
    const bool kept = b.s_grad != nullptr && place.group == 0 && own.exists;
    const float s = see_moment(p, g, own, time, [&](int c, int32_t delta, const float4& phi) {
      if (kept) b.s_delta[c * p.queries * p.k + place.first + begin + own.row] = delta;
      const float4(&of)[kEsuHeads] = heads.time_grad[c];
      gain = make_float4(dot4(phi, of[0], gain.x), dot4(phi, of[1], gain.y),
                         dot4(phi, of[2], gain.z), dot4(phi, of[3], gain.w));
    });
    if (lane_index() < Stage::kWarpRows && own.row < weights.rows) {
      weights.floats_of(own.row) = gain;
    }
    const uint32_t valid = __ballot_sync(kAllLanes, own.position >= 0);
    wait_for_copies<0>();
    __syncwarp();
    float c[Stage::kRowTiles][2][4] = {};
    if (rows.count > 0) multiply_vectors<T, kRowBytes>(rows, vectors.lane_row(), c);
    EsuRowWeights<2 * Stage::kRowTiles> found;
    find_weights<T>(c, s, valid, first_row, rows.count, heads.head[esu_lane_head()], weights,
                    found);
    write_rows<T, kRowBytes, kAligned, Stage::kRowTiles>(b, g, place, begin, rows, valid, found,
                                                         vectors);
    if (b.u_grad == nullptr) continue;
    __syncwarp();  // the gains have been read
    add_u_grad<T, kRowBytes>(found.ds, first_row, rows.count, memory,
                             min(Stage::kRows, count - begin), weights, largest, exponent, columns);
  }
  if (b.u_grad == nullptr) return;
  __syncthreads();
  const float unscale = power_of(254 - exponent);
  const float other = __shfl_xor_sync(kAllLanes, unscale, 2);
  const bool upper = esu_is_upper();
  float* const sums = reinterpret_cast<float*>(esu_memory);
  put_sums(columns, {upper ? other : unscale, upper ? unscale : other}, kRowBytes / 2, sums);
  __syncthreads();
  write_u_grad<T>(b, g, place, {0, static_cast<int>(p.dim)},
                  [&](int head, int i) { return sums[head * (kRowBytes / 2) + i]; });
}

// Of a multiprocessor, by registers.
template <int kRowBytes>
constexpr int kBlocks = kRowBytes <= 512 ? 4 : 2;

template <class T, int kRowBytes, bool kAligned>
__global__ void __launch_bounds__(kEsuThreads, kBlocks<kRowBytes>)
    esu_attention_backward_mma_kernel(const __grid_constant__ DeviceEsuAttentionBackwardParams b,
                                      const __grid_constant__ EsuGeometry g,
                                      const __grid_constant__ EsuGradLayout m) {
  if constexpr (kHasAsyncCopy) grade_part<T, kRowBytes, kAligned>(b, g, m);
}

}  // namespace

int launch_esu_backward_mma(const DeviceEsuAttentionBackwardParams& b, const EsuGeometry& g,
                            bool aligned, int64_t count, CudaStream stream) {
  return with_esu_stage(b.forward, aligned, [&](auto stage) {
    using S = decltype(stage);
    return launch_esu_blocks(
        esu_attention_backward_mma_kernel<typename S::Type, S::kRowBytes, S::kAligned>, b, g,
        esu_grad_layout<typename S::Type, S::kRowBytes>(b.forward), count, stream);
  });
}

}  // namespace longclock
