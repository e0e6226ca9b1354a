// SPDX-License-Identifier: Apache-2.0
// What follows the first kernel of the backward: z's and s's gradients added up over groups of
// heads, and u's over parts of the behaviours, each in order.
#pragma once

#include <type_traits>

#include "longclock/esu_attention/esu_attention_pieces.cuh"

namespace longclock {

constexpr int kPairs = 2;  // of rows of a lane

// Columns of a row of the context or of its gradient.
template <bool kAligned>
__device__ __forceinline__ float4 load_context(const DeviceEsuAttentionParams& p, const float* rows,
                                               int64_t query, int64_t head, int at) {
  const int64_t dim = p.dim;
  return load_quad<float, kAligned>(rows + (query * p.heads + head) * p.width, at,
                                    head < p.heads ? dim : 0);
}

// A clock's time features of such a row.
__device__ __forceinline__ float4 load_context_time(const DeviceEsuAttentionParams& p,
                                                    const float* rows, int64_t query, int64_t head,
                                                    int clock) {
  if (head >= p.heads) return zero4();
  const float* row = rows + (query * p.heads + head) * p.width + p.dim + clock * kTimeFeatures;
  return make_float4(row[0], row[1], row[2], row[3]);
}

// out[row] += sum over the group's heads of by[row] * heads, at this lane's columns.
__device__ __forceinline__ void add_heads(const EsuHeadRows& heads, int lane,
                                          const float4 (&by)[kEsuRows], float4 (&out)[kEsuRows]) {
#pragma unroll
  for (int head = 0; head < kEsuHeads; ++head) {
    const float4 x = heads[head][lane];
#pragma unroll
    for (int row = 0; row < kEsuRows; ++row) add_scaled((&by[row].x)[head], x, out[row]);
  }
}

// Writes the block's columns of u's gradient, or of its part: column(head, i).
template <class T, class Column>
__device__ __forceinline__ void write_u_grad(const DeviceEsuAttentionBackwardParams& b,
                                             const EsuGeometry& g, const EsuPlace& place,
                                             const EsuColumns& columns, const Column& column) {
  const DeviceEsuAttentionParams& p = b.forward;
  const int64_t dim = p.dim, head = place.group * kEsuHeads + warp_index();
  static_assert(kEsuWarps == kEsuHeads);
  if (head >= p.heads) return;
  const int64_t row = place.query * p.heads + head;
  const int64_t slot = (place.query * g.parts + place.part) * p.heads + head;
  const auto write = [&](auto* to) {
#pragma unroll 1
    for (int i = lane_index(); i < columns.count; i += kWarp) {
      to[columns.begin + i] =
          narrow<std::remove_reference_t<decltype(*to)>>(column(warp_index(), i));
    }
  };
  if (g.parts > 1) return write(b.u_partial + slot * dim);
  if (p.u_is_float) return write(static_cast<float*>(b.u_grad) + row * dim);
  write(static_cast<T*>(b.u_grad) + row * dim);
}

// In the order of the heads.
__device__ __forceinline__ float add4(float sum, const float4& v) {
  return (((sum + v.x) + v.y) + v.z) + v.w;
}

// More than four heads: z's and s's gradients from the weights of all groups. One block a query,
// panel, and kPairs pairs of rows a lane; g.parts counts those blocks of rows, g.groups is 1.
template <class T, EsuForm kForm>
__global__ void __launch_bounds__(kEsuThreads)
    esu_attention_backward_rows_kernel(const DeviceEsuAttentionBackwardParams b,
                                       const EsuGeometry g) {
  constexpr bool kAligned = kIsAligned<kForm>;
  __shared__ EsuHeadRows u_heads, grad_heads;
  const DeviceEsuAttentionParams& p = b.forward;
  const EsuPlace place = esu_place(p, g);
  const int lane = lane_index() & (g.lanes - 1);
  const int at = place.panel * g.lanes * 4 + lane_column<T>(lane, g.lanes);
  const int step = row_step(g);
  const int64_t first = int64_t{place.part} * kPairs * step + first_row(g);
  const int groups = static_cast<int>(esu_head_groups(p.heads));
  float4 out[kPairs][kEsuRows] = {};
  float s_grad[kPairs][kEsuRows] = {};
  for (int group = 0; group < groups; ++group) {
    __syncthreads();
    fill_heads<T>(u_heads, g, place.panel, [&](int head, int column) {
      return load_u<T, kAligned>(p, place.query, group * kEsuHeads + head, column);
    });
    fill_heads<T>(grad_heads, g, place.panel, [&](int head, int column) {
      return load_context<kAligned>(p, b.grad, place.query, group * kEsuHeads + head, column);
    });
    __syncthreads();
    const float4* all = reinterpret_cast<const float4*>(b.weights) +
                        ((place.query - g.query_begin) * groups + group) * p.k * 2;
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      float4 ds[kEsuRows] = {}, weights[kEsuRows] = {};
#pragma unroll
      for (int i = 0; i < kEsuRows; ++i) {
        const int64_t row = first + pair * step + i;
        if (row >= p.k) continue;
        ds[i] = all[row * 2];
        weights[i] = all[row * 2 + 1];
        s_grad[pair][i] = add4(s_grad[pair][i], ds[i]);
      }
      add_heads(u_heads, lane, ds, out[pair]);
      add_heads(grad_heads, lane, weights, out[pair]);
    }
  }
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int64_t row = first + pair * step, position = place.query * p.k + row;
    const int count = static_cast<int>(min(max(p.k - row, int64_t{0}), int64_t{kEsuRows}));
#pragma unroll
    for (int i = 0; i < kEsuRows; ++i) {
      if (i >= count) continue;
      if (b.s_grad != nullptr && place.panel == 0 && lane == 0) {
        b.s_grad[position + i] = s_grad[pair][i];
      }
      if (!is_valid(p, position + i)) out[pair][i] = zero4();
    }
    if (b.z_grad == nullptr) continue;
    const int64_t dim = p.dim;
    store_rows<T, kAligned>(static_cast<T*>(b.z_grad) + position * dim, count, at, dim, lane,
                            g.lanes, out[pair]);
  }
}

// One block a query and head: u's gradients of its parts, in order.
template <class U>
__global__ void __launch_bounds__(kEsuThreads)
    esu_attention_backward_merge_kernel(const DeviceEsuAttentionBackwardParams b,
                                        const EsuGeometry g) {
  const DeviceEsuAttentionParams& p = b.forward;
  const int64_t query = g.query_begin + blockIdx.x / p.heads, dim = p.dim;
  const int64_t head = blockIdx.x % p.heads;
  const float* partial = b.u_partial + (query * g.parts * p.heads + head) * dim;
  U* out = static_cast<U*>(b.u_grad) + (query * p.heads + head) * dim;
  for (int64_t i = threadIdx.x; i < dim; i += kEsuThreads) {
    float sum = 0.0f;
    for (int part = 0; part < g.parts; ++part) sum += partial[part * p.heads * dim + i];
    out[i] = narrow<U>(sum);
  }
}

}  // namespace longclock
