// SPDX-License-Identifier: Apache-2.0
// The backward of esu_attention, in the forward's layout: alpha is computed again in the one pass
// over z that the gradients need anyway, and a row's gradient is written while the row is there.
// u and the gradient of the context stay in shared memory, the sums of u's gradient in registers.
// Where there are more than four heads, a row's weights of each group wait in global memory, and a
// second kernel adds the groups up, in order.
#include "esu_rows.cuh"

namespace longclock {
namespace {

constexpr int kTile = 64;       // behaviours whose time terms are computed together
constexpr int kRowsAtOnce = 4;  // of a lane, in the second kernel
static_assert(kEsuChunk % kTile == 0);

// What is known of a head before any behaviour is read.
struct HeadState {
  float top, log_sum;  // of the softmax
  float share;         // gradient . context
  bool exists;
};

__device__ __forceinline__ float add_time_product(float dot, const float4& grad,
                                                  const float4& phi) {
  return dot4(grad, phi, dot);
}

// The rows of the context's gradient.
template <class T, bool kAligned>
__device__ __forceinline__ void load_head_floats(const EsuAttentionCudaParams& p, const float* rows,
                                                 int64_t query, int64_t head, int at,
                                                 float (&out)[kVector16<T>]) {
  const int64_t dim = p.behaviours.dim;
  load_floats<T, kAligned>(rows + (query * p.heads + head) * (dim + kTimeFeatures), at,
                           head < p.heads ? dim : 0, out);
}

// out[row] += sum over the group's heads of ds * u + weight * grad, at this lane's columns.
template <class T, int kRows>
__device__ __forceinline__ void add_heads(const float4* u, const float4* grad,
                                          const float4 (&ds)[kRows], const float4 (&weight)[kRows],
                                          float (&out)[kRows][kVector16<T>]) {
#pragma unroll
  for (int quad = 0; quad < kQuads<T>; ++quad) {
#pragma unroll
    for (int head = 0; head < kEsuHeads; ++head) {
      const float4 a = u[head * kQuads<T> + quad], b = grad[head * kQuads<T> + quad];
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        const float* d = &ds[row].x;
        const float* w = &weight[row].x;
        float* to = out[row] + 4 * quad;
        to[0] = fmaf(w[head], b.x, fmaf(d[head], a.x, to[0]));
        to[1] = fmaf(w[head], b.y, fmaf(d[head], a.y, to[1]));
        to[2] = fmaf(w[head], b.z, fmaf(d[head], a.z, to[2]));
        to[3] = fmaf(w[head], b.w, fmaf(d[head], a.w, to[3]));
      }
    }
  }
}

__device__ __forceinline__ float sum4(const float4& v) { return ((v.x + v.y) + v.z) + v.w; }

template <class T, EsuForm kForm>
__global__ void __launch_bounds__(kEsuThreads, kEsuBlocks<kForm>)
    esu_attention_backward_kernel(const EsuAttentionBackwardCudaParams b, const EsuGeometry g) {
  constexpr bool kAligned = kIsAligned<kForm>;
  extern __shared__ float4 u_heads[];  // u, then the sums of its gradient; and behind it:
  float4* const grad_heads = u_heads + kHeadsStride<T> * g.lanes;
  __shared__ SharedTimeMlp mlp;
  __shared__ float4 tile_phi[kTile];  // and then ds of the four heads
  __shared__ int4 tile_row[kTile];    // and then their weights
  __shared__ float4 time_grad[kEsuHeads];
  __shared__ HeadState states[kEsuHeads];
  __shared__ EsuPlace place;
  const EsuAttentionCudaParams& p = b.forward;
  const EsuTile tile = {tile_phi, tile_row};
  const int lane = lane_index() & (g.lanes - 1);  // of the row

  if (threadIdx.x == 0) place = esu_place(g);
  load_time_mlp(p.behaviours.mlp, &mlp);
  __syncthreads();
  const auto u_piece = [&](int head, int at, float (&out)[kVector16<T>]) {
    load_u<T, kAligned>(p, place.query, place.group * kEsuHeads + head, at, out);
  };
  const auto grad_piece = [&](int head, int at, float (&out)[kVector16<T>]) {
    load_head_floats<T, kAligned>(p, b.grad, place.query, place.group * kEsuHeads + head, at, out);
  };
  fill_heads<T>(u_heads, g.lanes, [&](int head, int piece, float (&out)[kVector16<T>]) {
    u_piece(head, (place.panel * g.lanes + piece) * kVector16<T>, out);
  });
  fill_heads<T>(grad_heads, g.lanes, [&](int head, int piece, float (&out)[kVector16<T>]) {
    grad_piece(head, (place.panel * g.lanes + piece) * kVector16<T>, out);
  });
  if (threadIdx.x < kEsuHeads) {
    const int64_t head = place.group * kEsuHeads + threadIdx.x, dim = p.behaviours.dim;
    float values[kTimeFeatures] = {};
    if (head < p.heads) {
      const float* from = b.grad + (place.query * p.heads + head) * (dim + kTimeFeatures) + dim;
      for (int i = 0; i < kTimeFeatures; ++i) values[i] = from[i];
    }
    time_grad[threadIdx.x] = make_float4(values[0], values[1], values[2], values[3]);
  }
  __syncthreads();
  if (warp_index() == 0) {
    // Summed as a row's product with the gradient is, so that their difference is exactly 0 where
    // one behaviour has all the weight.
    float products[kEsuHeads] = {};
#pragma unroll
    for (int head = 0; head < kEsuHeads; ++head) {
      const int64_t in_all = place.group * kEsuHeads + head;
#pragma unroll 1
      for (int panel = 0; panel < g.panels; ++panel) {
        const int at = (panel * g.lanes + lane) * kVector16<T>;
        float context[kVector16<T>], grad[kVector16<T>];
        load_head_floats<T, kAligned>(p, p.context, place.query,
                                      lane_index() < g.lanes ? in_all : p.heads, at, context);
        if constexpr (kForm == EsuForm::kFast) {
#pragma unroll
          for (int quad = 0; quad < kQuads<T>; ++quad) {
            const float4 v = grad_heads[lane * kHeadsStride<T> + head * kQuads<T> + quad];
            grad[4 * quad] = v.x, grad[4 * quad + 1] = v.y, grad[4 * quad + 2] = v.z,
                     grad[4 * quad + 3] = v.w;
          }
        } else {
          grad_piece(head, at, grad);
        }
#pragma unroll
        for (int i = 0; i < kVector16<T>; ++i) {
          products[head] = fmaf(context[i], grad[i], products[head]);
        }
      }
    }
    const float dot = sum_heads(products, g.lanes);
    if (lane_index() < kEsuHeads) {
      const int64_t head = place.group * kEsuHeads + lane_index();
      HeadState state = {0.0f, 0.0f, 0.0f, head < p.heads};
      if (state.exists) {
        const int64_t row = place.query * p.heads + head, dim = p.behaviours.dim;
        const float* time = p.context + row * (dim + kTimeFeatures) + dim;
        state.top = p.softmax[row * 2];
        state.log_sum = p.softmax[row * 2 + 1];
        state.share = add_time_product(dot, time_grad[lane_index()],
                                       make_float4(time[0], time[1], time[2], time[3]));
      }
      states[lane_index()] = state;
    }
  }

  const int at = (place.panel * g.lanes + lane) * kVector16<T>;
  const int left = static_cast<int>(p.behaviours.dim) - at;
  const T* columns = static_cast<const T*>(p.behaviours.keys) + at;
  float u_grad[kEsuHeads][kVector16<T>] = {};
  for (int begin = 0; begin < kEsuChunk; begin += kTile) {
    const int64_t rest = p.k - place.chunk * kEsuChunk - begin;
    if (rest <= 0) break;
    __syncthreads();
    const int64_t position = place.query * p.k + place.chunk * kEsuChunk + begin;
    if (threadIdx.x < kTile) {
      const int32_t delta =
          read_behaviour(p, g.per_unit, place, begin + threadIdx.x, mlp, tile, threadIdx.x);
      if (b.s_grad != nullptr && place.panel == 0 && place.group == 0 && threadIdx.x < rest) {
        b.s_delta[position + threadIdx.x] = delta < 0 ? 0 : delta;
      }
    }
    __syncthreads();
    const int step = kEsuThreads / g.lanes;
    int row = threadIdx.x / g.lanes;
    for (const int last = row + static_cast<int>(rest < kTile ? rest : kTile); row < last;
         row += step) {
      const EsuRow at_row = esu_row(tile.row[row]);
      uint4 z[1] = {load_z<T, kAligned>(columns, left, at_row.begin)};
      float alpha, gain;
      {
        float products[1][kEsuHeads] = {};
        float gains[1][kEsuHeads] = {};
        if constexpr (kForm == EsuForm::kFast) {
          add_products<T>(u_heads + lane * kHeadsStride<T>, z, products);
          alpha = sum_heads(products[0], g.lanes) + at_row.s;
          add_products<T>(grad_heads + lane * kHeadsStride<T>, z, gains);
        } else {
          const auto z_piece = [&](int from, float (&out)[kVector16<T>]) {
            widen16<T>(load_z<T, kAligned>(columns + (from - at), left - (from - at), at_row.begin),
                       out);
          };
          add_all_products<T>(lane, g, z_piece, u_piece, products[0]);
          add_all_products<T>(lane, g, z_piece, grad_piece, gains[0]);
          alpha = sum_heads(products[0], g.lanes) + at_row.s;
        }
        gain = sum_heads(gains[0], g.lanes);
      }
      const int head = lane_index() % kEsuHeads;
      const HeadState state = states[head];
      gain = add_time_product(gain, time_grad[head], tile.phi[row]);
      float weight = 0.0f, ds = 0.0f;
      if (state.exists && at_row.begin != kInvalidRow) {
        // In two steps: top + log_sum would lose the logarithm's digits to a large alpha.
        weight = expf((alpha - state.top) - state.log_sum);
        ds = weight * (gain - state.share);
      }
      __syncwarp();
      if (lane < kEsuHeads) {
        reinterpret_cast<float*>(tile.phi + row)[lane] = ds;
        reinterpret_cast<float*>(tile.row + row)[lane] = weight;
      }
      __syncwarp();
      const float4 all_ds[1] = {tile.phi[row]};
      const float4 all_weights[1] = {*reinterpret_cast<const float4*>(tile.row + row)};
#pragma unroll
      for (int quad = 0; quad < kQuads<T>; ++quad) {
        const float4 x = widen_quad<T>(z[0], quad);
#pragma unroll
        for (int i = 0; i < kEsuHeads; ++i) {
          const float by = (&all_ds[0].x)[i];
          float* to = u_grad[i] + 4 * quad;
          to[0] = fmaf(by, x.x, to[0]);
          to[1] = fmaf(by, x.y, to[1]);
          to[2] = fmaf(by, x.z, to[2]);
          to[3] = fmaf(by, x.w, to[3]);
        }
      }
      if (row >= rest) continue;
      if (g.groups > 1) {
        if (b.weights != nullptr && place.panel == 0 && lane < 2) {
          const int64_t of_group = (place.query - g.query_begin) * g.groups + place.group;
          float4* to = reinterpret_cast<float4*>(b.weights) +
                       (of_group * p.k + place.chunk * kEsuChunk + begin + row) * 2;
          to[lane] = lane == 0 ? all_ds[0] : all_weights[0];
        }
        continue;
      }
      if (b.s_grad != nullptr && place.panel == 0 && lane == 0) {
        b.s_grad[position + row] = sum4(all_ds[0]);
      }
      if (b.z_grad != nullptr) {
        float out[1][kVector16<T>] = {};
        add_heads<T>(u_heads + lane * kHeadsStride<T>, grad_heads + lane * kHeadsStride<T>, all_ds,
                     all_weights, out);
        if (at_row.begin == kInvalidRow) {
#pragma unroll
          for (float& value : out[0]) value = 0.0f;
        }
        T* to = static_cast<T*>(b.z_grad) + (position + row) * p.behaviours.dim + at;
        store16<T, kAligned>(to, 0, left, out[0]);
      }
    }
  }
  if (b.u_grad == nullptr) return;
  __syncthreads();
  merge_heads<T>(u_grad, u_heads, g.lanes);
  const int64_t dim = p.behaviours.dim;
  const int panel_begin = place.panel * g.lanes * kVector16<T>;
  const int first_head = place.group * kEsuHeads;
  const int head_count = static_cast<int>(min(int64_t{kEsuHeads}, p.heads - first_head));
  const int panel_columns =
      static_cast<int>(min(int64_t{g.lanes} * kVector16<T>, dim - panel_begin));
  for (int head = 0; head < head_count; ++head) {
    const int64_t row = place.query * p.heads + first_head + head;
    const int64_t part = (place.query * g.chunks + place.chunk) * p.heads + first_head + head;
    for (int i = threadIdx.x; i < panel_columns; i += kEsuThreads) {
      const float value = head_column<T>(u_heads, head, i);
      if (g.chunks > 1) {
        b.u_partial[part * dim + panel_begin + i] = value;
      } else if (p.u_is_float) {
        static_cast<float*>(b.u_grad)[row * dim + panel_begin + i] = value;
      } else {
        static_cast<T*>(b.u_grad)[row * dim + panel_begin + i] = narrow<T>(value);
      }
    }
  }
}

// More than four heads: z's and s's gradients from the weights of all groups. One block a query,
// panel, and kRowsAtOnce rows a lane; g.chunks counts those blocks of rows, g.groups is 1.
template <class T, EsuForm kForm>
__global__ void __launch_bounds__(kEsuThreads)
    esu_attention_backward_rows_kernel(const EsuAttentionBackwardCudaParams b,
                                       const EsuGeometry g) {
  constexpr bool kAligned = kIsAligned<kForm>;
  extern __shared__ float4 u_heads[];
  float4* const grad_heads = u_heads + kHeadsStride<T> * g.lanes;
  const EsuAttentionCudaParams& p = b.forward;
  const EsuPlace place = esu_place(g);
  const int lane = lane_index() & (g.lanes - 1);
  const int at = (place.panel * g.lanes + lane) * kVector16<T>;
  const int step = kEsuThreads / g.lanes;
  const int64_t first = int64_t{place.chunk} * kRowsAtOnce * step + threadIdx.x / g.lanes;
  const int groups = static_cast<int>(esu_head_groups(p.heads));
  float out[kRowsAtOnce][kVector16<T>] = {};
  float s_grad[kRowsAtOnce] = {};
  for (int group = 0; group < groups; ++group) {
    __syncthreads();
    fill_heads<T>(u_heads, g.lanes, [&](int head, int piece, float (&to)[kVector16<T>]) {
      load_u<T, kAligned>(p, place.query, group * kEsuHeads + head,
                          (place.panel * g.lanes + piece) * kVector16<T>, to);
    });
    fill_heads<T>(grad_heads, g.lanes, [&](int head, int piece, float (&to)[kVector16<T>]) {
      load_head_floats<T, kAligned>(p, b.grad, place.query, group * kEsuHeads + head,
                                    (place.panel * g.lanes + piece) * kVector16<T>, to);
    });
    __syncthreads();
    float4 ds[kRowsAtOnce], weights[kRowsAtOnce];
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      ds[i] = weights[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (first + i * step >= p.k) continue;
      const float4* from =
          reinterpret_cast<const float4*>(b.weights) +
          (((place.query - g.query_begin) * groups + group) * p.k + first + i * step) * 2;
      ds[i] = from[0];
      weights[i] = from[1];
      s_grad[i] += ds[i].x;
      s_grad[i] += ds[i].y;
      s_grad[i] += ds[i].z;
      s_grad[i] += ds[i].w;
    }
    add_heads<T>(u_heads + lane * kHeadsStride<T>, grad_heads + lane * kHeadsStride<T>, ds, weights,
                 out);
  }
#pragma unroll
  for (int i = 0; i < kRowsAtOnce; ++i) {
    if (first + i * step >= p.k) continue;
    const int64_t position = place.query * p.k + first + i * step;
    if (b.s_grad != nullptr && place.panel == 0 && lane == 0) b.s_grad[position] = s_grad[i];
    if (b.z_grad == nullptr) continue;
    if (p.behaviours.mask != nullptr && p.behaviours.mask[position] == 0) {
#pragma unroll
      for (float& value : out[i]) value = 0.0f;
    }
    store16<T, kAligned>(static_cast<T*>(b.z_grad) + position * p.behaviours.dim, at,
                         p.behaviours.dim, out[i]);
  }
}

// One block a query and head: u's gradients of its chunks, in order.
template <class U>
__global__ void __launch_bounds__(kEsuThreads)
    esu_attention_backward_merge_kernel(const EsuAttentionBackwardCudaParams b,
                                        const EsuGeometry g) {
  const EsuAttentionCudaParams& p = b.forward;
  const int64_t query = g.query_begin + blockIdx.x / p.heads, dim = p.behaviours.dim;
  const int64_t head = blockIdx.x % p.heads;
  const float* part = b.u_partial + (query * g.chunks * p.heads + head) * dim;
  U* out = static_cast<U*>(b.u_grad) + (query * p.heads + head) * dim;
  for (int64_t i = threadIdx.x; i < dim; i += kEsuThreads) {
    float sum = 0.0f;
    for (int chunk = 0; chunk < g.chunks; ++chunk) sum += part[chunk * p.heads * dim + i];
    out[i] = narrow<U>(sum);
  }
}

template <class T, EsuForm kForm>
int launch(const EsuAttentionBackwardCudaParams& b, CudaStream stream) {
  const EsuAttentionCudaParams& p = b.forward;
  EsuGeometry g = esu_geometry<T>(p);
  const size_t shared = 2 * sizeof(float4) * kHeadsStride<T> * g.lanes;
  const int64_t blocks = int64_t{g.chunks} * g.groups * g.panels;
  const bool by_groups = g.groups > 1 && (b.z_grad != nullptr || b.s_grad != nullptr) && p.k > 0;
  EsuGeometry rows = g;
  const int64_t block_rows = kRowsAtOnce * kEsuThreads / g.lanes;
  rows.chunks = static_cast<int>((p.k + block_rows - 1) / block_rows);
  rows.groups = 1;
  const int64_t row_blocks = int64_t{rows.chunks} * g.panels;
  int64_t most = blocks > p.heads ? blocks : p.heads;
  if (row_blocks > most) most = row_blocks;
  return for_each_portion(
      p.queries, esu_portion(p.queries, p.heads, p.k), most, [&](int64_t begin, int64_t count) {
        g.query_begin = rows.query_begin = begin;
        esu_attention_backward_kernel<T, kForm>
            <<<static_cast<unsigned>(count * blocks), kEsuThreads, shared, stream>>>(b, g);
        if (by_groups) {
          esu_attention_backward_rows_kernel<T, kForm>
              <<<static_cast<unsigned>(count * row_blocks), kEsuThreads, shared, stream>>>(b, rows);
        }
        if (g.chunks == 1 || b.u_grad == nullptr) return;
        const unsigned merges = static_cast<unsigned>(count * p.heads);
        if (p.u_is_float) {
          esu_attention_backward_merge_kernel<float><<<merges, kEsuThreads, 0, stream>>>(b, g);
        } else {
          esu_attention_backward_merge_kernel<T><<<merges, kEsuThreads, 0, stream>>>(b, g);
        }
      });
}

}  // namespace

int launch_esu_attention_backward(const EsuAttentionBackwardCudaParams& b, CudaStream stream) {
  const EsuAttentionCudaParams& p = b.forward;
  if (p.queries == 0) return cudaSuccess;
  return with_esu_form(p, [&](auto form) {
    return launch<typename decltype(form)::Type, decltype(form)::kForm>(b, stream);
  });
}

}  // namespace longclock
