// SPDX-License-Identifier: Apache-2.0
// The softmax of the forward on tensor cores: from the products of a warp's rows, as mma leaves
// them, to weights in shared memory. In lane 4 g + t rows lie eight apart, from g on, and two
// heads, 2 t and 2 t + 1 mod 4: both halves of a quad have the same, and share what follows.
#pragma once

#include "longclock/esu_attention/esu_attention_output.cuh"
#include "longclock/esu_attention/esu_attention_stage.cuh"

namespace longclock {

extern __shared__ __align__(128) char esu_memory[];

// Where what a block shares lies in its memory.
struct EsuLayout {
  int rows;       // of a stage, at most
  int u;          // [kEsuHeads, kRowBytes]
  int weights;    // EsuWeights
  int more_phi;   // of the clocks after the first, [clocks - 1, rows]: float4
  int more_sums;  // [clocks - 1, kEsuThreads]: float4
  int bytes;

  __device__ __forceinline__ float4* phi_of(int clock) const {
    return reinterpret_cast<float4*>(esu_memory + more_phi) + (clock - 1) * rows;
  }
  __device__ __forceinline__ float4* sums_of(int clock) const {
    return reinterpret_cast<float4*>(esu_memory + more_sums) + (clock - 1) * kEsuThreads;
  }
};

template <class T, int kRowBytes>
EsuLayout esu_layout(const DeviceEsuAttentionParams& p) {
  constexpr int kRows = EsuStage<kRowBytes>::kRows;
  EsuLayout m{};
  const int clocks = p.behaviours.time.clocks;
  m.rows = p.k < kRows ? static_cast<int>(p.k) : kRows;
  // The context's columns pass through the memory of the rows.
  const int least = kEsuHeads * 4 / 2;
  m.u = (m.rows < least ? least : m.rows) * kRowBytes;
  m.weights = m.u + kEsuHeads * kRowBytes;
  m.more_phi = m.weights + EsuWeights<T>::bytes((m.rows + 15) / 16 * 16);
  m.more_sums = m.more_phi + (clocks - 1) * m.rows * 16;
  m.bytes = m.more_sums + (clocks - 1) * kEsuThreads * 16;
  return m;
}

// Over the lanes 4 g + t of a warp with one t, in a fixed order.
template <class F>
__device__ __forceinline__ float over_rows(float value, const F& f) {
#pragma unroll
  for (int offset = 4; offset < kWarp; offset *= 2) {
    value = f(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}
__device__ __forceinline__ float sum_rows(float value) {
  return over_rows(value, [](float a, float b) { return a + b; });
}

// What a lane knows of its head: the largest alpha so far, what sums from before it fade by, and
// the sums of weights and of weights times the features of the first clock.
struct EsuSoftmax {
  float top = -INFINITY, fade = 0.0f;
  float sum = 0.0f;
  float4 time = {};

  // Goes on to the largest of the warps' alphas; what was before it fades.
  __device__ __forceinline__ void rise(const float (&tops)[kEsuWarps][kEsuHeads], bool is_first) {
    const float before = top;
#pragma unroll
    for (const auto& of_warp : tops) top = fmaxf(top, of_warp[esu_lane_head()]);
    if (is_first) return;
    fade = exp_negative(before - finite_base(top));
    sum *= fade;
    scale(fade, time);
  }

  // Adds up over the rows of the warp. The clocks after the first end as write_part() reads them.
  __device__ __forceinline__ void add_up(const EsuLayout& m, int clocks, EsuBlockSums& sums) const {
    const int lane = lane_index(), head = esu_lane_head();
    const auto add = [&](const float4& v, float* to) {
      const float all[kTimeFeatures] = {sum_rows(v.x), sum_rows(v.y), sum_rows(v.z), sum_rows(v.w)};
      __syncwarp();
      if (lane >= kEsuHeads) return;
#pragma unroll
      for (int i = 0; i < kTimeFeatures; ++i) to[i] = all[i];
    };
    float (&to)[kEsuSums] = sums.sums[warp_index()][head];
    add(time, to);
    const float weights = sum_rows(sum);
    if (lane < kEsuHeads) to[kTimeFeatures] = weights;
#pragma unroll 1
    for (int clock = 1; clock < clocks; ++clock) {
      float4* const of_warp = m.sums_of(clock) + warp_index() * kWarp;
      add(of_warp[lane], &of_warp[head].x);
    }
  }
};

// The alphas of the warp's rows, of the lane's head, from their products; -inf where nothing
// counts. The largest to `tops`.
template <int kRowTiles>
__device__ __forceinline__ void find_alphas(const float (&c)[kRowTiles][4], float s, uint32_t valid,
                                            float (&alphas)[2 * kRowTiles],
                                            float (&tops)[kEsuHeads]) {
  const bool upper = esu_is_upper();
  const uint32_t of_group = valid >> lane_index() / 4;
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    const float of_row = __shfl_sync(kAllLanes, s, 8 * i + lane_index() / 4);
    const float product = upper ? c[i / 2][i % 2 * 2 + 1] : c[i / 2][i % 2 * 2];
    alphas[i] = (of_group >> 8 * i & 1) != 0 ? product + of_row : -INFINITY;
    top = fmaxf(top, alphas[i]);
  }
  top = over_rows(top, [](float a, float b) { return fmaxf(a, b); });
  if (lane_index() < kEsuHeads) tops[esu_lane_head()] = top;
}

// Weights from the alphas of the warp's rows, added to the sums and left to the block. In the place
// of a row's weights lie its features of the first clock.
template <class T, int kRows>
__device__ __forceinline__ void weigh(const float (&alphas)[kRows], int first_row, int count,
                                      const EsuLayout& m, int clocks, const EsuWeights<T>& out,
                                      EsuSoftmax& softmax) {
  const int group = lane_index() / 4;
  const float base = finite_base(softmax.top);
  float weights[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    weights[i] = 0.0f;
    if (i / 2 * 16 >= count) continue;
    weights[i] = exp_negative(alphas[i] - base);
    softmax.sum += weights[i];
    const int row = first_row + 8 * i + group;
    add_scaled(weights[i], out.floats_of(row), softmax.time);
    __syncwarp();
    out.put(row, weights[i] * kWeightScale<T>);
  }
#pragma unroll 1
  for (int clock = 1; clock < clocks; ++clock) {
    float4 sums = m.sums_of(clock)[threadIdx.x];
    scale(softmax.fade, sums);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (i / 2 * 16 >= count) continue;
      const int row = min(first_row + 8 * i + group, m.rows - 1);
      add_scaled(weights[i], m.phi_of(clock)[row], sums);
    }
    m.sums_of(clock)[threadIdx.x] = sums;
  }
}

}  // namespace longclock
