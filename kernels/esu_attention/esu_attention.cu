// SPDX-License-Identifier: Apache-2.0
// The forward of esu_attention: one block a query, group of four heads, chunk of behaviours and
// panel of columns. Memory-bound: a row of z is read once for the four heads and stays in registers
// between its dot products and the weighted sums. The lanes of a row keep an online softmax of
// their own; those of a block, and then those of the chunks, are brought to one maximum in a fixed
// order. What a thread executes depends on sizes, not on the data.
#include "esu_rows.cuh"

namespace longclock {
namespace {

constexpr int kTile = kEsuThreads;        // behaviours whose time terms are computed together
constexpr int kSums = kTimeFeatures + 1;  // of a head, besides columns: p * phi, and p
static_assert(kEsuChunk % kTile == 0);

__device__ __forceinline__ float finite_base(float top) {
  return top == -INFINITY ? 0.0f : top;  // nothing but -inf so far: weights of 0
}

// The online softmax of the behaviours that the lanes of a row have seen.
template <class T>
struct EsuStream {
  float acc[kEsuHeads][kVector16<T>] = {};  // this lane's columns
  float top = -INFINITY, sum = 0.0f;        // of head lane & 3
  float time[kTimeFeatures] = {};
};

// Takes up rows: their pieces, and alpha and phi of head lane & 3.
template <class T>
__device__ __forceinline__ void attend(EsuStream<T>& stream, uint4 (&z)[kEsuAtOnce<T>],
                                       const float (&alpha)[kEsuAtOnce<T>],
                                       const float4* const (&phi)[kEsuAtOnce<T>]) {
  constexpr int kRows = kEsuAtOnce<T>;
  const float before = stream.top;
#pragma unroll
  for (float value : alpha) stream.top = fmaxf(stream.top, value);
  const float base = finite_base(stream.top);
  const float fade = expf(before - base);
  float p[kRows];
#pragma unroll
  for (int row = 0; row < kRows; ++row) p[row] = expf(alpha[row] - base);
#pragma unroll
  for (float& value : stream.time) value *= fade;
  stream.sum *= fade;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const float4 f = *phi[row];
    stream.sum += p[row];
    stream.time[0] = fmaf(p[row], f.x, stream.time[0]);
    stream.time[1] = fmaf(p[row], f.y, stream.time[1]);
    stream.time[2] = fmaf(p[row], f.z, stream.time[2]);
    stream.time[3] = fmaf(p[row], f.w, stream.time[3]);
    keep_packed(z[row]);
  }
#pragma unroll
  for (int head = 0; head < kEsuHeads; ++head) {
    const int source = (lane_index() & ~(kEsuHeads - 1)) | head;
    float (&acc)[kVector16<T>] = stream.acc[head];
    const float head_fade = __shfl_sync(kAllLanes, fade, source);
#pragma unroll
    for (float& value : acc) value *= head_fade;
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float weight = __shfl_sync(kAllLanes, p[row], source);
#pragma unroll
      for (int quad = 0; quad < kQuads<T>; ++quad) {
        const float4 x = widen_quad<T>(z[row], quad);
        acc[4 * quad] = fmaf(weight, x.x, acc[4 * quad]);
        acc[4 * quad + 1] = fmaf(weight, x.y, acc[4 * quad + 1]);
        acc[4 * quad + 2] = fmaf(weight, x.z, acc[4 * quad + 2]);
        acc[4 * quad + 3] = fmaf(weight, x.w, acc[4 * quad + 3]);
      }
    }
  }
}

template <class T, EsuForm kForm>
__global__ void __launch_bounds__(kEsuThreads, kEsuBlocks<kForm>)
    esu_attention_kernel(const EsuAttentionCudaParams p, const EsuGeometry g) {
  constexpr bool kAligned = kIsAligned<kForm>;
  extern __shared__ float4 heads[];  // u, then the sums of columns
  __shared__ SharedTimeMlp mlp;
  __shared__ float4 tile_phi[kTile];
  __shared__ int4 tile_row[kTile];
  __shared__ float tops[kEsuWarps][kEsuHeads];
  __shared__ float sums[kEsuWarps][kEsuHeads][kSums];
  __shared__ EsuPlace place;  // not in registers: those are the stream's
  const EsuTile tile = {tile_phi, tile_row};
  const int lane = lane_index() & (g.lanes - 1);  // of the row

  if (threadIdx.x == 0) place = esu_place(g);
  load_time_mlp(p.behaviours.mlp, &mlp);
  __syncthreads();
  fill_heads<T>(heads, g.lanes, [&](int head, int piece, float (&out)[kVector16<T>]) {
    load_u<T, kAligned>(p, place.query, place.group * kEsuHeads + head,
                        (place.panel * g.lanes + piece) * kVector16<T>, out);
  });
  const int at = (place.panel * g.lanes + lane) * kVector16<T>;
  const int left = static_cast<int>(p.behaviours.dim) - at;
  const T* columns = static_cast<const T*>(p.behaviours.keys) + at;

  EsuStream<T> stream;
  bool any = false;
  for (int begin = 0; begin < kEsuChunk; begin += kTile) {
    const int64_t rest = p.k - place.chunk * kEsuChunk - begin;
    if (rest <= 0) break;
    __syncthreads();
    const int32_t delta =
        read_behaviour(p, g.per_unit, place, begin + threadIdx.x, mlp, tile, threadIdx.x);
    any |= __syncthreads_or(delta >= 0);
    const int step = kEsuThreads / g.lanes;
    int row = threadIdx.x / g.lanes;
    for (const int last = row + static_cast<int>(rest < kTile ? rest : kTile); row < last;
         row += kEsuAtOnce<T> * step) {
      uint4 z[kEsuAtOnce<T>];
      float alpha[kEsuAtOnce<T>];
      const float4* phi[kEsuAtOnce<T>];
      float products[kEsuAtOnce<T>][kEsuHeads] = {};
#pragma unroll
      for (int i = 0; i < kEsuAtOnce<T>; ++i) {
        z[i] = load_z<T, kAligned>(columns, left, esu_row(tile.row[row + i * step]).begin);
      }
      if constexpr (kForm == EsuForm::kFast) {
        add_products<T>(heads + lane * kHeadsStride<T>, z, products);
      } else {
        for (int i = 0; i < kEsuAtOnce<T>; ++i) {
          const int64_t row_begin = esu_row(tile.row[row + i * step]).begin;
          add_all_products<T>(
              lane, g,
              [&](int from, float (&out)[kVector16<T>]) {
                widen16<T>(
                    load_z<T, kAligned>(columns + (from - at), left - (from - at), row_begin), out);
              },
              [&](int head, int from, float (&out)[kVector16<T>]) {
                load_u<T, kAligned>(p, place.query, place.group * kEsuHeads + head, from, out);
              },
              products[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kEsuAtOnce<T>; ++i) {
        const EsuRow at_row = esu_row(tile.row[row + i * step]);
        const float sum = sum_heads(products[i], g.lanes) + at_row.s;
        alpha[i] = at_row.begin == kInvalidRow ? -INFINITY : sum;
        phi[i] = &tile.phi[row + i * step];
      }
      attend<T>(stream, z, alpha, phi);
    }
  }

  // One maximum for the block.
  float top = stream.top;
  for (int offset = g.lanes; offset < kWarp; offset *= 2) {
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, offset));
  }
  const int lane_head = lane_index() % kEsuHeads;
  if (lane_index() < kEsuHeads) tops[warp_index()][lane_head] = top;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kEsuWarps; ++warp) top = fmaxf(top, tops[warp][lane_head]);
  const float fade = expf(stream.top - finite_base(top));
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    const float value = i < kTimeFeatures ? stream.time[i] : stream.sum;
    const float sum = sum_rows(value * fade, g.lanes);
    if (lane_index() < kEsuHeads) sums[warp_index()][lane_head][i] = sum;
  }
#pragma unroll
  for (int head = 0; head < kEsuHeads; ++head) {
    const float head_fade = __shfl_sync(kAllLanes, fade, head | (lane_index() & ~3));
#pragma unroll
    for (float& value : stream.acc[head]) value *= head_fade;
  }
  merge_heads<T>(stream.acc, heads, g.lanes);

  // The context itself where there is one chunk, else a part of it.
  const bool whole = g.chunks == 1;
  const int64_t query = place.query, dim = p.behaviours.dim;
  const int first_head = place.group * kEsuHeads;
  const int panel_begin = place.panel * g.lanes * kVector16<T>;
  const int64_t width = whole ? dim + kTimeFeatures : esu_partial_width(dim);
  const auto out_row = [&](int head) {
    return whole ? p.context + (query * p.heads + first_head + head) * width
                 : p.partial +
                       ((query * g.chunks + place.chunk) * p.heads + first_head + head) * width;
  };
  const auto block_sum = [&](int head, int i) {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kEsuWarps; ++warp) sum += sums[warp][head][i];
    return sum;
  };
  // Valid behaviours whose alphas are all -inf give 0 / 0, as torch's softmax does.
  const auto divisor = [&](int head) {
    return whole && any ? block_sum(head, kTimeFeatures) : 1.0f;
  };
  const int head_count = static_cast<int>(min(int64_t{kEsuHeads}, p.heads - first_head));
  const int panel_columns =
      static_cast<int>(min(int64_t{g.lanes} * kVector16<T>, dim - panel_begin));
  for (int head = 0; head < head_count; ++head) {
    const float by = divisor(head);
    float* out = out_row(head) + panel_begin;
    for (int i = threadIdx.x; i < panel_columns; i += kEsuThreads) {
      out[i] = head_column<T>(heads, head, i) / by;
    }
  }
  if (place.panel != 0) return;
  if (warp_index() == 0 && lane_index() < head_count) {
    float* out = out_row(lane_head) + dim;
    const float by = divisor(lane_head), sum = block_sum(lane_head, kTimeFeatures);
#pragma unroll
    for (int i = 0; i < kTimeFeatures; ++i) out[i] = block_sum(lane_head, i) / by;
    if (whole) {
      float* softmax = p.softmax + (query * p.heads + first_head + lane_head) * 2;
      softmax[0] = top;
      softmax[1] = any ? logf(sum) : 0.0f;
    } else {
      out[kTimeFeatures] = top;
      out[kTimeFeatures + 1] = sum;
      out[kTimeFeatures + 2] = any ? 1.0f : 0.0f;
    }
  }
}

// One block a query and head: its chunks, in order.
__global__ void __launch_bounds__(kEsuThreads)
    esu_attention_merge_kernel(const EsuAttentionCudaParams p, const EsuGeometry g) {
  const int64_t query = g.query_begin + blockIdx.x / p.heads;
  const int64_t head = blockIdx.x % p.heads;
  const int64_t width = p.behaviours.dim + kTimeFeatures;
  const int64_t partial_width = esu_partial_width(p.behaviours.dim);
  const int64_t stride = p.heads * partial_width;  // from chunk to chunk
  const float* part = p.partial + (query * g.chunks * p.heads + head) * partial_width;
  const float* statistics = part + width;  // top, sum, any
  float top = -INFINITY, any = 0.0f;
  for (int chunk = 0; chunk < g.chunks; ++chunk) {
    top = fmaxf(top, statistics[chunk * stride]);
    any = fmaxf(any, statistics[chunk * stride + 2]);
  }
  const float base = finite_base(top);
  float sum = 0.0f;
  for (int chunk = 0; chunk < g.chunks; ++chunk) {
    sum = fmaf(expf(statistics[chunk * stride] - base), statistics[chunk * stride + 1], sum);
  }
  const float by = any != 0.0f ? sum : 1.0f;
  float* context = p.context + (query * p.heads + head) * width;
  for (int64_t i = threadIdx.x; i < width; i += kEsuThreads) {
    float value = 0.0f;
    for (int chunk = 0; chunk < g.chunks; ++chunk) {
      value = fmaf(expf(statistics[chunk * stride] - base), part[chunk * stride + i], value);
    }
    context[i] = value / by;
  }
  if (threadIdx.x == 0) {
    float* softmax = p.softmax + (query * p.heads + head) * 2;
    softmax[0] = top;
    softmax[1] = any != 0.0f ? logf(sum) : 0.0f;
  }
}

template <class T, EsuForm kForm>
int launch(const EsuAttentionCudaParams& p, CudaStream stream) {
  EsuGeometry g = esu_geometry<T>(p);
  const size_t shared = sizeof(float4) * kHeadsStride<T> * g.lanes;
  const int64_t blocks = int64_t{g.chunks} * g.groups * g.panels;
  return for_each_portion(
      p.queries, p.queries, blocks > p.heads ? blocks : p.heads, [&](int64_t begin, int64_t count) {
        g.query_begin = begin;
        esu_attention_kernel<T, kForm>
            <<<static_cast<unsigned>(count * blocks), kEsuThreads, shared, stream>>>(p, g);
        if (g.chunks == 1) return;
        esu_attention_merge_kernel<<<static_cast<unsigned>(count * p.heads), kEsuThreads, 0,
                                     stream>>>(p, g);
      });
}

}  // namespace

int launch_esu_attention(const EsuAttentionCudaParams& p, CudaStream stream) {
  if (p.queries == 0 || p.heads == 0) return cudaSuccess;
  return with_esu_form(p, [&](auto form) {
    return launch<typename decltype(form)::Type, decltype(form)::kForm>(p, stream);
  });
}

}  // namespace longclock
