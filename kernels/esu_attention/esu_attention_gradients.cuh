// SPDX-License-Identifier: Apache-2.0
// The parts of the backward on tensor cores. What multiplies z is of 16 bits as z is, gradients in
// as many slices as hold 22 bits of fp32; what makes z's gradient is fp32 in two slices of TF32.
#pragma once

#include "longclock/esu_attention/esu_attention_backward_merge.cuh"
#include "longclock/esu_attention/esu_attention_stage.cuh"

namespace longclock {

extern __shared__ __align__(128) char esu_memory[];

// Where what a block shares lies in its memory, behind the rows of a stage.
struct EsuGradLayout {
  int rows;     // of a stage, at most
  int vectors;  // EsuVectors
  int values;
  int weights;  // EsuWeights
  int bytes;
};

// What of a head is multiplied with z, as B of mma, rows of z's dtype: u, then the slices of the
// gradient, each of the four heads. And the same as B of the product that makes z's gradient: fp32,
// u and then the gradient, heads in the order of the lanes that work on them.
template <class T, int kRowBytes>
struct EsuVectors {
  static constexpr int kRows = kEsuHeads * (1 + kSlices<T>);
  static constexpr int kStride = kRowBytes / 2 + 2;  // of the values: lanes meet no bank twice
  static constexpr int kBytes = kRows * kRowBytes;
  static constexpr int kValueBytes = 2 * kEsuHeads * kStride * 4;

  char* memory;
  float* values;

  __device__ __forceinline__ void put(int row, int quad, const uint2& words) const {
    *reinterpret_cast<uint2*>(memory + swizzled<kRowBytes>(row, quad / 2) + quad % 2 * 8) = words;
  }
  __device__ __forceinline__ void put_values(int row, int quad, const float4& v) const {
    float2* const to = reinterpret_cast<float2*>(values + row * kStride + quad * 4);
    to[0] = make_float2(v.x, v.y);
    to[1] = make_float2(v.z, v.w);
  }
  // Where a lane reads them: the first eight, then the others, of which fp16 has four, twice.
  __device__ __forceinline__ uint32_t lane_row() const {
    const int lane = lane_index(), n = lane / 16 * 8 + lane % 8;
    return shared_address(memory) + swizzled<kRowBytes>(n < kRows ? n : n - 4, lane / 8 % 2);
  }
};

template <class T, int kRowBytes>
EsuGradLayout esu_grad_layout(const DeviceEsuAttentionParams& p) {
  using Vectors = EsuVectors<T, kRowBytes>;
  constexpr int kRows = EsuStage<kRowBytes>::kRows;
  EsuGradLayout m{};
  m.rows = p.k < kRows ? static_cast<int>(p.k) : kRows;
  // The columns of u's gradient pass through the memory of the rows.
  const int least = kEsuHeads * 4 / 2;
  m.vectors = (m.rows < least ? least : m.rows) * kRowBytes;
  m.values = m.vectors + Vectors::kBytes;
  m.weights = m.values + Vectors::kValueBytes;
  m.bytes = m.weights + EsuWeights<T>::bytes((m.rows + 15) / 16 * 16);
  return m;
}

// A power of two that brings numbers up to `largest`, the bits of a float above 0, to the middle of
// fp16's range, so that two slices hold 22 bits of all that count beside the largest: the exponent
// as it lies in a float. That of its inverse is 254 less this.
__device__ __forceinline__ int scale_exponent(uint32_t largest) {
  return min(268 - static_cast<int>(largest >> 23), 253);
}
__device__ __forceinline__ float power_of(int exponent) { return __int_as_float(exponent << 23); }
__device__ __forceinline__ uint32_t magnitude(float v) { return __float_as_uint(fabsf(v)); }

// What is known of a head before any behaviour is read.
struct EsuGradHead {
  float top, log_sum;  // of the softmax
  float share;         // gradient . context
  float unscale;       // of products with the gradient's slices
  bool exists;
};
struct EsuGradHeads {
  EsuGradHead head[kEsuHeads];
  float4 time_grad[kMaxClocks][kEsuHeads];
};

// Fills the vectors and what is known of the heads, a warp a head.
template <class T, int kRowBytes, bool kAligned>
__device__ __forceinline__ void fill_heads(const DeviceEsuAttentionBackwardParams& b,
                                           const EsuPlace& place,
                                           const EsuVectors<T, kRowBytes>& out,
                                           EsuGradHeads& heads) {
  constexpr int kAll = kRowBytes / 8, kQuads = (kAll + kWarp - 1) / kWarp;
  const DeviceEsuAttentionParams& p = b.forward;
  const int in_group = warp_index(), lane = lane_index();
  const int64_t head = place.group * kEsuHeads + in_group, row = place.query * p.heads + head;
  const int place_of_values = esu_head_lane(in_group);
  float4 grads[kQuads];
  float share = 0.0f;
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int quad = lane + i * kWarp;
    grads[i] = load_context<kAligned>(p, b.grad, place.query, head, quad * 4);
    share =
        dot4(load_context<kAligned>(p, p.context, place.query, head, quad * 4), grads[i], share);
    largest = max(max(max(largest, magnitude(grads[i].x)), magnitude(grads[i].y)),
                  max(magnitude(grads[i].z), magnitude(grads[i].w)));
    if (quad >= kAll) continue;
    const float4 u = load_u<T, kAligned>(p, place.query, head, quad * 4);
    out.put(in_group, quad, narrow4<T>(u));
    out.put_values(place_of_values, quad, u);
    out.put_values(kEsuHeads + place_of_values, quad, grads[i]);
  }
  const bool exists = head < p.heads;
  if (lane < kMaxClocks * kTimeFeatures) {
    const bool is = exists && lane < p.behaviours.time.features();
    const int64_t at = row * p.width + p.dim + lane;
    const float grad = is ? b.grad[at] : 0.0f;
    if (is) share = fmaf(p.context[at], grad, share);
    (&heads.time_grad[lane / kTimeFeatures][in_group].x)[lane % kTimeFeatures] = grad;
  }
  share = warp_sum(share);
  int exponent = 127;
  if constexpr (__is_same(T, Float16)) exponent = scale_exponent(warp_max(largest));
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int quad = lane + i * kWarp;
    if (quad >= kAll) continue;
    scale(power_of(exponent), grads[i]);
#pragma unroll
    for (int slice = 1; slice <= kSlices<T>; ++slice) {
      const uint2 words = narrow4<T>(grads[i]);
      out.put(kEsuHeads * slice + in_group, quad, words);
      add_scaled(-1.0f, widen4<T>(words), grads[i]);
    }
  }
  if (lane != 0) return;
  EsuGradHead state = {0.0f, 0.0f, share, power_of(254 - exponent), exists};
  if (exists) {
    const float2 softmax = reinterpret_cast<const float2*>(p.softmax)[row];
    state.top = softmax.x;
    state.log_sum = softmax.y;
  }
  heads.head[in_group] = state;
}

// The products of the warp's rows with the vectors: of lane 4 g + t, c[i][j] has rows 16 i + g and
// 16 i + g + 8 and vectors 8 j + 2 t and the next.
template <class T, int kRowBytes, int kRowTiles>
__device__ __forceinline__ void multiply_vectors(const EsuWarpRows& rows, uint32_t b_row,
                                                 float (&c)[kRowTiles][2][4]) {
  uint32_t a_row[kRowTiles];
#pragma unroll
  for (int tile = 0; tile < kRowTiles; ++tile) a_row[tile] = a_rows<kRowBytes>(rows, 16 * tile);
#pragma unroll 2
  for (int step = 0; step < kRowBytes; step += 128) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint32_t b[4];
      load_matrices(b, (b_row ^ (k * 32)) + step);
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        uint32_t a[4];
        load_matrices(a, (a_row[tile] ^ (k * 32)) + step);
        mma_16x8x16<T>(c[tile][0], a[0], a[1], a[2], a[3], b[0], b[1]);
        mma_16x8x16<T>(c[tile][1], a[0], a[1], a[2], a[3], b[2], b[3]);
      }
    }
  }
}

// Of a row, the alpha and the gradient's product with z of the lane's head, from what mma leaves in
// its quad: u of two heads in the lower lanes, the gradient's first slice in the upper ones; then
// its further slices.
template <class T>
__device__ __forceinline__ float2 alpha_and_gain(const float (&c)[2][4], int half) {
  const bool upper = esu_is_upper();
  const float first = c[0][2 * half], second = c[0][2 * half + 1];
  const float got = __shfl_xor_sync(kAllLanes, upper ? first : second, 2);
  const float alpha = upper ? got : first, gain = upper ? second : got;
  const float low = c[1][2 * half], high = c[1][2 * half + 1];
  float rest = upper ? high : low;
  if constexpr (kSlices<T> == 3) rest += __shfl_xor_sync(kAllLanes, upper ? low : high, 2);
  return make_float2(alpha, gain + rest);
}

// Of a lane's head and its rows, eight apart.
template <int kRows>
struct EsuRowWeights {
  float ds[kRows], weight[kRows];
};

// gains: of the time features, in the place of a row's weights.
template <class T, int kRowTiles>
__device__ __forceinline__ void find_weights(const float (&c)[kRowTiles][2][4], float s,
                                             uint32_t valid, int first_row, int count,
                                             const EsuGradHead& head, const EsuWeights<T>& gains,
                                             EsuRowWeights<2 * kRowTiles>& out) {
  const int group = lane_index() / 4;
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    out.ds[i] = out.weight[i] = 0.0f;
    if (i / 2 * 16 >= count) continue;
    const int row = 8 * i + group;
    const float2 products = alpha_and_gain<T>(c[i / 2], i % 2);
    const float alpha = products.x + __shfl_sync(kAllLanes, s, row);
    const float gain =
        fmaf(products.y, head.unscale, (&gains.floats_of(first_row + row).x)[esu_lane_head()]);
    if ((valid >> row & 1) == 0 || !head.exists) continue;
    // In two steps: top + log_sum would lose the logarithm's digits to a large alpha.
    const float weight = exp_negative((alpha - head.top) - head.log_sum);
    // Where one behaviour has all the weight, its gain is the share, but for what is rounded.
    out.ds[i] = (weight == 1.0f ? 0.0f : weight) * (gain - head.share);
    out.weight[i] = weight;
  }
}

// s's gradient of the warp's rows [0, count): to `out`.
template <int kRows>
__device__ __forceinline__ void write_s_grad(const float (&ds)[kRows], int count, float* out) {
  const int lane = lane_index();
  float mine = 0.0f;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    float sum = ds[i] + __shfl_xor_sync(kAllLanes, ds[i], 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (lane % 4 == i) mine = sum;
  }
  if (const int row = lane % 4 * 8 + lane / 4; lane % 4 < kRows && row < count) out[row] = mine;
}

// Of several groups of heads: ds and weights of the warp's rows [0, count), for the second kernel.
template <int kRows>
__device__ __forceinline__ void write_weights(const EsuRowWeights<kRows>& w, int count,
                                              float* out) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int row = 8 * i + lane_index() / 4;
    if (row >= count) continue;
    out[row * 2 * kEsuHeads + esu_lane_head()] = w.ds[i];
    out[row * 2 * kEsuHeads + kEsuHeads + esu_lane_head()] = w.weight[i];
  }
}

// Eight columns of a row of `dim`, from `at` on.
template <class T, bool kAligned>
__device__ __forceinline__ void store_columns(T* row, int at, int dim, const uint32_t (&words)[4]) {
  if constexpr (kAligned) {
    // One store, which the compiler does not always see.
    const uint4 all = make_uint4(words[0], words[1], words[2], words[3]);
    if (at < dim) __stwb(reinterpret_cast<uint4*>(row + at), all);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (at + i < dim) row[at + i] = {static_cast<uint16_t>(words[i / 2] >> i % 2 * 16)};
    }
  }
}

// z's gradient of the warp's rows [0, count), [ds weight] [u; gradient], of which the lanes of a
// quad hold the first: three products of TF32, which leave out 2^-21. Columns of mma lie so that a
// lane ends with eight that are consecutive.
template <class T, int kRowBytes, bool kAligned, int kRowTiles>
__device__ __forceinline__ void write_z_grad(const EsuRowWeights<2 * kRowTiles>& w, uint32_t valid,
                                             int count, const EsuVectors<T, kRowBytes>& vectors,
                                             int dim, T* out) {
  constexpr int kStride = EsuVectors<T, kRowBytes>::kStride;
  const int lane = lane_index(), group = lane / 4, quad_lane = lane % 4;
  uint32_t a[kRowTiles][4], a_rest[kRowTiles][4];
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    split_tf32(w.ds[i], a[i / 2][i % 2], a_rest[i / 2][i % 2]);
    split_tf32(w.weight[i], a[i / 2][2 + i % 2], a_rest[i / 2][2 + i % 2]);
  }
  const float* value = vectors.values + quad_lane * kStride + group / 2 * 8 + group % 2;
  uint32_t counts[2 * kRowTiles];  // all bits, or none; the compiler would branch by them
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    counts[i] = 0 - (valid >> (8 * i + group) & 1);
    asm("" : "+r"(counts[i]));
  }
  out += group * dim;
#pragma unroll 1
  for (int column = 8 * quad_lane; column - 8 * quad_lane < dim; column += 32, value += 32) {
    float c[kRowTiles][4][4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t u = __float_as_uint(value[2 * j]);
      uint32_t grad, grad_rest;
      split_tf32(value[kEsuHeads * kStride + 2 * j], grad, grad_rest);
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        first_mma_16x8x8_tf32(c[tile][j], a_rest[tile], u, grad);
        mma_16x8x8_tf32(c[tile][j], a[tile], 0, grad_rest);
        mma_16x8x8_tf32(c[tile][j], a[tile], u, grad);
      }
    }
    T* to = out;
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i, to += 8 * dim) {
      if (8 * i + group >= count) continue;
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float (&of)[4] = c[i / 2][j];
        words[j] = narrow2<T>(of[i % 2 * 2], of[i % 2 * 2 + 1]) & counts[i];
      }
      store_columns<T, kAligned>(to, column, dim, words);
    }
  }
}

// What a warp's rows leave: the gradients of s and z, or where there are several groups of heads,
// ds and weights for the second kernel. begin: of the stage in the part.
template <class T, int kRowBytes, bool kAligned, int kRowTiles>
__device__ __forceinline__ void write_rows(const DeviceEsuAttentionBackwardParams& b,
                                           const EsuGeometry& g, const EsuPlace& place, int begin,
                                           const EsuWarpRows& rows, uint32_t valid,
                                           const EsuRowWeights<2 * kRowTiles>& own,
                                           const EsuVectors<T, kRowBytes>& vectors) {
  const int64_t k = b.forward.k, first = place.first + begin + rows.first;
  const int dim = static_cast<int>(b.forward.dim);
  if (g.groups > 1) {
    if (b.weights == nullptr) return;
    const int64_t of_group = (place.query - g.query_begin) * g.groups + place.group;
    const int64_t in_query = place.part * kEsuPart + begin + rows.first;
    write_weights(own, rows.count, b.weights + (of_group * k + in_query) * 2 * kEsuHeads);
    return;
  }
  if (b.s_grad != nullptr) write_s_grad(own.ds, rows.count, b.s_grad + first);
  if (b.z_grad == nullptr || rows.count == 0) return;
  write_z_grad<T, kRowBytes, kAligned, kRowTiles>(own, valid, rows.count, vectors, dim,
                                                  static_cast<T*>(b.z_grad) + first * dim);
}

}  // namespace longclock
