// SPDX-License-Identifier: Apache-2.0
// The backward of esu_attention, in the forward's layout: alpha is computed again in the one pass
// over z that the gradients need anyway, and a row's gradient is written while the row is there.
// u and the gradient of the context stay in shared memory, the sums of u's gradient in registers.
// Where there are more than four heads, a row's weights of each group wait in global memory, and a
// second kernel adds the groups up, in order.
#include "longclock/esu_attention/esu_attention_launch.cuh"

namespace longclock {
namespace {

constexpr int kTile = 64;  // behaviours whose time terms are computed together
constexpr int kPairs = 2;  // of rows of a lane, in the second kernel
static_assert(kEsuPart % kTile == 0);

// What is known of a head before any behaviour is read.
struct HeadState {
  float top, log_sum;  // of the softmax
  float share;         // gradient . context
  bool exists;
};

// Columns of a row of the context or of its gradient.
template <bool kAligned>
__device__ __forceinline__ float4 load_context(const DeviceEsuAttentionParams& p, const float* rows,
                                               int64_t query, int64_t head, int at) {
  const int64_t dim = p.behaviours.dim;
  return load_quad<float, kAligned>(rows + (query * p.heads + head) * (dim + kTimeFeatures), at,
                                    head < p.heads ? dim : 0);
}

// And of its time features.
__device__ __forceinline__ float4 load_context_time(const DeviceEsuAttentionParams& p,
                                                    const float* rows, int64_t query,
                                                    int64_t head) {
  if (head >= p.heads) return zero4();
  const int64_t dim = p.behaviours.dim;
  const float* row = rows + (query * p.heads + head) * (dim + kTimeFeatures) + dim;
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

// In the order of the heads.
__device__ __forceinline__ float add4(float sum, const float4& v) {
  return (((sum + v.x) + v.y) + v.z) + v.w;
}

template <class T, EsuForm kForm>
__global__ void __launch_bounds__(kEsuThreads, kEsuBlocks<kForm>)
    esu_attention_backward_kernel(const DeviceEsuAttentionBackwardParams b, const EsuGeometry g) {
  constexpr bool kAligned = kIsAligned<kForm>;
  __shared__ EsuHeadRows u_heads;  // then the sums of its gradient
  __shared__ EsuHeadRows grad_heads;
  __shared__ SharedTimeMlp mlp;
  __shared__ float4 tile_phi[kTile];  // then ds of the four heads
  __shared__ int4 tile_row[kTile];    // then their weights
  __shared__ float4 time_grad[kEsuHeads];
  __shared__ HeadState states[kEsuHeads];
  const DeviceEsuAttentionParams& p = b.forward;
  const EsuTile tile = {tile_phi, tile_row};
  float4* const weights = reinterpret_cast<float4*>(tile_row);
  __shared__ EsuPlace place;
  if (threadIdx.x == 0) place = esu_place(p, g);
  __syncthreads();
  const int lane = lane_index() & (g.lanes - 1);
  const int lane_head = lane_index() % kEsuHeads;
  const int at = place.panel * g.lanes * 4 + lane_column<T>(lane, g.lanes);
  const auto u_quad = [&](int head, int column) {
    return load_u<T, kAligned>(p, place.query, place.group * kEsuHeads + head, column);
  };
  const auto grad_quad = [&](int head, int column) {
    return load_context<kAligned>(p, b.grad, place.query, place.group * kEsuHeads + head, column);
  };
  load_time_mlp(p.behaviours.mlp, &mlp);
  fill_heads<T>(u_heads, g, place.panel, u_quad);
  fill_heads<T>(grad_heads, g, place.panel, grad_quad);
  __syncthreads();
  if (warp_index() == 0) {
    // Summed as a row's product with the gradient is, so that their difference is exactly 0 where
    // one behaviour has all the weight.
    float products[kEsuHeads] = {};
#pragma unroll
    for (int head = 0; head < kEsuHeads; ++head) {
      const int64_t row = place.group * kEsuHeads + head;
#pragma unroll 1
      for (int panel = 0; panel < g.panels; ++panel) {
        const int column = panel * g.lanes * 4 + lane_column<T>(lane, g.lanes);
        const float4 grad =
            kForm == EsuForm::kFast ? grad_heads[head][lane] : grad_quad(head, column);
        const float4 context = load_context<kAligned>(
            p, p.context, place.query, lane_index() < g.lanes ? row : p.heads, column);
        products[head] = dot4(context, grad, products[head]);
      }
    }
    const float dot = sum_heads(products, g.lanes);
    if (lane_index() < kEsuHeads) {
      const int64_t head = place.group * kEsuHeads + lane_head;
      const float4 grad = load_context_time(p, b.grad, place.query, head);
      const float4 context = load_context_time(p, p.context, place.query, head);
      HeadState state = {0.0f, 0.0f, dot4(context, grad, dot), head < p.heads};
      if (state.exists) {
        state.top = p.softmax[(place.query * p.heads + head) * 2];
        state.log_sum = p.softmax[(place.query * p.heads + head) * 2 + 1];
      }
      states[lane_head] = state;
      time_grad[lane_head] = grad;
    }
  }

  float4 u_grad[kEsuHeads] = {};
  const int count = part_count(p, g);
  for (int begin = 0; begin < count; begin += kTile) {
    if (threadIdx.x < kTile) {
      const int32_t delta =
          read_behaviour(p, g, place, begin + threadIdx.x, count, mlp, tile, threadIdx.x);
      if (b.s_grad != nullptr && place.panel == 0 && place.group == 0 &&
          begin + static_cast<int>(threadIdx.x) < count) {
        b.s_delta[place.first + begin + threadIdx.x] = delta < 0 ? 0 : delta;
      }
    }
    __syncthreads();
    const int whole = min(kTile, count - begin);
    for (int step = 0; step < whole; step += row_step(g)) {
      const int row = step + first_row(g);
      const EsuRow rows[kEsuRows] = {esu_row(tile.row[row]), esu_row(tile.row[row + 1])};
      const int64_t begins[kEsuRows] = {rows[0].begin, rows[1].begin};
      float4 x[kEsuRows];
      load_rows<T, kAligned>(p.behaviours, begins, at, lane, g.lanes, x);
      float alpha[kEsuRows], gain[kEsuRows];
      {
        float products[kEsuRows][kEsuHeads] = {};
        if constexpr (kForm == EsuForm::kFast) {
          add_products(u_heads, lane, x, products);
        } else {
          add_all_products<T, kAligned>(p.behaviours, begins, lane, g, u_quad, products);
        }
#pragma unroll
        for (int i = 0; i < kEsuRows; ++i) {
          alpha[i] = sum_heads(products[i], g.lanes) + rows[i].s;
        }
      }
      {
        float products[kEsuRows][kEsuHeads] = {};
        if constexpr (kForm == EsuForm::kFast) {
          add_products(grad_heads, lane, x, products);
        } else {
          add_all_products<T, kAligned>(p.behaviours, begins, lane, g, grad_quad, products);
        }
#pragma unroll
        for (int i = 0; i < kEsuRows; ++i) {
          gain[i] = sum_heads(products[i], g.lanes);
        }
      }
#pragma unroll
      for (int i = 0; i < kEsuRows; ++i) {
        gain[i] = dot4(tile.phi[row + i], time_grad[lane_head], gain[i]);
      }
      const HeadState state = states[lane_head];
      __syncwarp();  // the tile's entries of these rows have been read
#pragma unroll
      for (int i = 0; i < kEsuRows; ++i) {
        const bool counts = state.exists && begins[i] != kInvalidRow;
        // In two steps: top + log_sum would lose the logarithm's digits to a large alpha.
        const float weight = counts ? expf((alpha[i] - state.top) - state.log_sum) : 0.0f;
        if (lane < kEsuHeads) {
          reinterpret_cast<float*>(tile.phi + row + i)[lane] =
              counts ? weight * (gain[i] - state.share) : 0.0f;
          reinterpret_cast<float*>(weights + row + i)[lane] = weight;
        }
      }
      __syncwarp();
      const float4 ds[kEsuRows] = {tile.phi[row], tile.phi[row + 1]};
#pragma unroll
      for (int head = 0; head < kEsuHeads; ++head) {
#pragma unroll
        for (int i = 0; i < kEsuRows; ++i) add_scaled((&ds[i].x)[head], x[i], u_grad[head]);
      }
      if (g.groups > 1 || b.z_grad == nullptr) continue;
      float4 out[kEsuRows] = {};
      add_heads(u_heads, lane, ds, out);
      add_heads(grad_heads, lane, {weights[row], weights[row + 1]}, out);
#pragma unroll
      for (int i = 0; i < kEsuRows; ++i) {
        if (begins[i] == kInvalidRow) out[i] = zero4();
      }
      const int64_t dim = p.behaviours.dim, first = place.first + begin + row;
      store_rows<T, kAligned>(static_cast<T*>(b.z_grad) + first * dim, count - begin - row, at, dim,
                              lane, g.lanes, out);
    }
    __syncthreads();
    if (place.panel != 0 || static_cast<int>(threadIdx.x) >= whole) continue;
    if (g.groups == 1) {
      if (b.s_grad != nullptr) {
        b.s_grad[place.first + begin + threadIdx.x] = add4(0.0f, tile.phi[threadIdx.x]);
      }
    } else if (b.weights != nullptr) {
      const int64_t of_group = (place.query - g.query_begin) * g.groups + place.group;
      float4* to = reinterpret_cast<float4*>(b.weights) +
                   (of_group * p.k + place.part * kEsuPart + begin + threadIdx.x) * 2;
      to[0] = tile.phi[threadIdx.x];
      to[1] = weights[threadIdx.x];
    }
  }
  if (b.u_grad == nullptr) return;
  merge_heads(u_grad, u_heads, g.lanes);
  const int64_t dim = p.behaviours.dim;
  const int panel_begin = place.panel * g.lanes * 4;
  const int first_head = place.group * kEsuHeads;
  const int head_count = static_cast<int>(min(int64_t{kEsuHeads}, p.heads - first_head));
  const int columns = static_cast<int>(min(int64_t{g.lanes} * 4, dim - panel_begin));
  for (int head = 0; head < head_count; ++head) {
    const int64_t row = place.query * p.heads + first_head + head;
    const int64_t slot = (place.query * g.parts + place.part) * p.heads + first_head + head;
#pragma unroll 1
    for (int i = threadIdx.x; i < columns; i += kEsuThreads) {
      const float value = head_column<T>(u_heads, g.lanes, head, i);
      if (g.parts > 1) {
        b.u_partial[slot * dim + panel_begin + i] = value;
      } else if (p.u_is_float) {
        static_cast<float*>(b.u_grad)[row * dim + panel_begin + i] = value;
      } else {
        static_cast<T*>(b.u_grad)[row * dim + panel_begin + i] = narrow<T>(value);
      }
    }
  }
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
      if (p.behaviours.mask != nullptr && p.behaviours.mask[position + i] == 0) {
        out[pair][i] = zero4();
      }
    }
    if (b.z_grad == nullptr) continue;
    const int64_t dim = p.behaviours.dim;
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
  const int64_t query = g.query_begin + blockIdx.x / p.heads, dim = p.behaviours.dim;
  const int64_t head = blockIdx.x % p.heads;
  const float* partial = b.u_partial + (query * g.parts * p.heads + head) * dim;
  U* out = static_cast<U*>(b.u_grad) + (query * p.heads + head) * dim;
  for (int64_t i = threadIdx.x; i < dim; i += kEsuThreads) {
    float sum = 0.0f;
    for (int part = 0; part < g.parts; ++part) sum += partial[part * p.heads * dim + i];
    out[i] = narrow<U>(sum);
  }
}

template <class T, EsuForm kForm>
int launch(const DeviceEsuAttentionBackwardParams& b, CudaStream stream) {
  const DeviceEsuAttentionParams& p = b.forward;
  EsuGeometry g = esu_geometry<T>(p);
  const int64_t blocks = int64_t{g.parts} * g.groups * g.panels;
  const bool by_groups = g.groups > 1 && (b.z_grad != nullptr || b.s_grad != nullptr) && p.k > 0;
  EsuGeometry rows = g;
  const int64_t block_rows = kPairs * kEsuRows * kEsuThreads / g.lanes;
  rows.parts = static_cast<int>((p.k + block_rows - 1) / block_rows);
  rows.groups = 1;
  const int64_t row_blocks = int64_t{rows.parts} * g.panels;
  int64_t most = blocks > p.heads ? blocks : p.heads;
  if (row_blocks > most) most = row_blocks;
  const int64_t task_queries = esu_task_queries(p.queries, p.heads, p.k);
  return for_each_part(
      p.queries, task_queries, most, most_blocks(), [&](int64_t begin, int64_t count) {
        g.query_begin = rows.query_begin = begin;
        esu_attention_backward_kernel<T, kForm>
            <<<grid_of(count * blocks), kEsuThreads, 0, stream>>>(b, g);
        if (by_groups) {
          esu_attention_backward_rows_kernel<T, kForm>
              <<<grid_of(count * row_blocks), kEsuThreads, 0, stream>>>(b, rows);
        }
        if (g.parts == 1 || b.u_grad == nullptr || p.heads == 0) return cudaGetLastError();
        const unsigned merges = grid_of(count * p.heads);
        if (p.u_is_float) {
          esu_attention_backward_merge_kernel<float><<<merges, kEsuThreads, 0, stream>>>(b, g);
        } else {
          esu_attention_backward_merge_kernel<T><<<merges, kEsuThreads, 0, stream>>>(b, g);
        }
        return cudaGetLastError();
      });
}

}  // namespace

int launch_esu_attention_backward(const DeviceEsuAttentionBackwardParams& b, CudaStream stream) {
  const DeviceEsuAttentionParams& p = b.forward;
  if (p.queries == 0) return cudaSuccess;
  const int64_t dim = p.behaviours.dim;
  const bool aligned = aligned16(b.grad, dim + kTimeFeatures, dim, DType::kFloat32) &&
                       aligned16(p.context, dim + kTimeFeatures, dim, DType::kFloat32) &&
                       aligned16(b.z_grad, dim, dim, p.behaviours.dtype);
  return with_esu_form(p, aligned, [&](auto form) {
    return launch<typename decltype(form)::Type, decltype(form)::kForm>(b, stream);
  });
}

}  // namespace longclock
