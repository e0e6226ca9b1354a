// SPDX-License-Identifier: Apache-2.0
// The forward of esu_attention on CUDA cores, for rows of fp32, for those too wide for shared
// memory and for sm_75; and what parts become. One block a query, group of four heads, part of
// behaviours and panel of columns. Memory-bound: a row of z is read once for the four heads and
// stays in registers between its dot products and the weighted sums. The lanes of a row keep an
// online softmax of their own; those of a block, and then those of the parts, are brought to one
// maximum in a fixed order. What a thread executes depends on sizes, not on the data.
#include "longclock/esu_attention/esu_attention_launch.cuh"
#include "longclock/esu_attention/esu_attention_mma.h"
#include "longclock/esu_attention/esu_attention_output.cuh"

namespace longclock {
namespace {

constexpr int kTile = kEsuThreads;  // behaviours whose time terms are computed together
static_assert(kEsuPart % kTile == 0);

// The online softmax of the behaviours that the lanes of a row have seen.
struct EsuStream {
  float4 acc[kEsuHeads] = {};         // this lane's columns
  float top = -INFINITY, sum = 0.0f;  // of head lane & 3
  float4 time = {};
};

// The clocks after the first, whose features and sums lie in memory that only a launch with several
// has: registers are short.
extern __shared__ float4 more_memory[];
__device__ __forceinline__ int clocks_of(const DeviceEsuAttentionParams& p) {
  return p.behaviours.time.clocks;
}
// Features of the tile's behaviours, as EsuTile::phi.
__device__ __forceinline__ float4* more_phi(int c) { return more_memory + (c - 1) * kTile; }
// Of each thread, the sums of p * phi of its head, as EsuStream::time.
__device__ __forceinline__ float4* more_sums(const DeviceEsuAttentionParams& p, int c) {
  return more_memory + (clocks_of(p) - 1) * kTile + (c - 1) * kEsuThreads;
}
// The addresses of rows that have features, behind what the clocks take.
LONGCLOCK_INLINE int more_words(const Behaviours& b) {
  return (b.time.clocks - 1) * (kTile + kEsuThreads);
}

// Takes up rows `row` and `row + 1` of the tile: their columns, and alpha of head lane & 3.
__device__ __forceinline__ void attend(EsuStream& stream, const float4 (&x)[kEsuRows],
                                       const float (&alpha)[kEsuRows], const EsuTile& tile,
                                       int tile_row, const DeviceEsuAttentionParams& params) {
  const float before = stream.top;
  stream.top = fmaxf(before, fmaxf(alpha[0], alpha[1]));
  const float base = finite_base(stream.top);
  const float fade = expf(before - base);
  const float p[kEsuRows] = {expf(alpha[0] - base), expf(alpha[1] - base)};
  stream.sum = fmaf(stream.sum, fade, p[0]) + p[1];
  scale(fade, stream.time);
#pragma unroll
  for (int row = 0; row < kEsuRows; ++row) {
    add_scaled(p[row], tile.phi[tile_row + row], stream.time);
  }
#pragma unroll
  for (int head = 0; head < kEsuHeads; ++head) {
    scale(of_head(fade, head), stream.acc[head]);
#pragma unroll
    for (int row = 0; row < kEsuRows; ++row) {
      add_scaled(of_head(p[row], head), x[row], stream.acc[head]);
    }
  }
#pragma unroll 1
  for (int c = 1; c < clocks_of(params); ++c) {
    float4 time = more_sums(params, c)[threadIdx.x];
    scale(fade, time);
#pragma unroll
    for (int row = 0; row < kEsuRows; ++row) add_scaled(p[row], more_phi(c)[tile_row + row], time);
    more_sums(params, c)[threadIdx.x] = time;
  }
}

// Takes up rows `row` and `row + 1` of the tile. `piece`: what the lane reads of the block's panel.
template <class T, EsuForm kForm, class U>
__device__ __forceinline__ void attend_rows(const DeviceEsuAttentionParams& p, const EsuGeometry& g,
                                            const EsuHeadRows& heads, const EsuTile& tile, int row,
                                            const EsuPiece<kForm>& piece, int lane, const U& u_quad,
                                            EsuStream& stream) {
  const EsuRow rows[kEsuRows] = {esu_row(tile.row[row]), esu_row(tile.row[row + 1])};
  const int64_t begins[kEsuRows] = {rows[0].begin, rows[1].begin};
  float4 x[kEsuRows];
  load_rows<T, kForm>(p, tile, row, begins, piece, lane, g.lanes, x);
  float products[kEsuRows][kEsuHeads] = {};
  if constexpr (kIsFast<kForm>) {
    add_products(heads, lane, x, products);
  } else {
    add_all_products<T, kForm>(p, tile, row, begins, lane, g, u_quad, products);
  }
  float alpha[kEsuRows];
#pragma unroll
  for (int i = 0; i < kEsuRows; ++i) {
    const float sum = sum_heads(products[i], g.lanes) + rows[i].s;
    alpha[i] = rows[i].begin == kInvalidRow ? -INFINITY : sum;
  }
  attend(stream, x, alpha, tile, row, p);
}

// Brings the streams of a block to one maximum, which it returns, and adds them up. By all threads.
// The sums of the clocks after the first end with the first lanes of each warp.
__device__ __forceinline__ float merge_streams(EsuStream& stream, const EsuGeometry& g,
                                               EsuHeadRows& heads, EsuBlockSums& sums,
                                               const DeviceEsuAttentionParams& p) {
  float top = stream.top;
  for (int offset = g.lanes; offset < kWarp; offset *= 2) {
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, offset));
  }
  const int lane_head = lane_index() % kEsuHeads;
  if (lane_index() < kEsuHeads) sums.tops[warp_index()][lane_head] = top;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kEsuWarps; ++warp) top = fmaxf(top, sums.tops[warp][lane_head]);
  const float fade = expf(stream.top - finite_base(top));
#pragma unroll
  for (int i = 0; i < kEsuSums; ++i) {
    const float value = i < kTimeFeatures ? (&stream.time.x)[i] : stream.sum;
    const float sum = sum_streams(value * fade, g.lanes);
    if (lane_index() < kEsuHeads) sums.sums[warp_index()][lane_head][i] = sum;
  }
#pragma unroll 1
  for (int c = 1; c < clocks_of(p); ++c) {
    float4 time = more_sums(p, c)[threadIdx.x];
    scale(fade, time);
    time = make_float4(sum_streams(time.x, g.lanes), sum_streams(time.y, g.lanes),
                       sum_streams(time.z, g.lanes), sum_streams(time.w, g.lanes));
    more_sums(p, c)[threadIdx.x] = time;
  }
#pragma unroll
  for (int head = 0; head < kEsuHeads; ++head) scale(of_head(fade, head), stream.acc[head]);
  merge_heads(stream.acc, heads, g.lanes);
  return top;
}

template <class T, EsuForm kForm>
__global__ void __launch_bounds__(kEsuThreads, kEsuBlocks<kForm>)
    esu_attention_kernel(const DeviceEsuAttentionParams p, const EsuGeometry g) {
  __shared__ EsuHeadRows heads;  // u, then the sums of columns
  __shared__ EsuTime time;
  __shared__ float4 tile_phi[kTile];
  __shared__ int4 tile_row[kTile];
  __shared__ EsuBlockSums sums;
  __shared__ EsuPlace place;
  __shared__ bool any;  // valid behaviour
  const EsuTile tile = {tile_phi, tile_row,
                        reinterpret_cast<const void**>(more_memory + more_words(p.behaviours)),
                        esu_table_stride(kTile)};
  const int lane = lane_index() & (g.lanes - 1);  // of those that share rows
  const auto u_quad = [&](int head, int column) {
    return load_u<T, kIsAligned<kForm>>(p, place.query, place.group * kEsuHeads + head, column);
  };
  if (threadIdx.x == 0) {
    place = esu_place(p, g);
    any = false;
  }
  __syncthreads();
  load_time(p, g, place.query, &time);
#pragma unroll 1
  for (int c = 1; c < clocks_of(p); ++c) more_sums(p, c)[threadIdx.x] = zero4();
  __syncthreads();
  const auto piece = piece_of<T, kForm>(p, tile.table_stride, place.panel, lane, g.lanes);
  fill_heads<T>(heads, g, place.panel, u_quad);

  EsuStream stream;
  const int count = part_count(p, g);
  for (int begin = 0; begin < count; begin += kTile) {
    __syncthreads();
    const bool valid = read_behaviour(p, g, place, begin + threadIdx.x, count, time, tile,
                                      threadIdx.x, [&](int c, int32_t, const float4& phi) {
                                        if (c > 0) more_phi(c)[threadIdx.x] = phi;
                                      });
    if constexpr (kHasFeatures<kForm>) {
      find_table_rows<T>(p, place, begin + threadIdx.x, tile, threadIdx.x);
    }
    const bool found = __syncthreads_or(valid);
    if (found && threadIdx.x == 0) any = true;
    const int whole = min(kTile, count - begin);
    for (int step = 0; step < whole; step += row_step(g)) {
      attend_rows<T, kForm>(p, g, heads, tile, step + first_row(g), piece, lane, u_quad, stream);
    }
  }
  const float top = merge_streams(stream, g, heads, sums, p);
  const int columns = g.lanes * 4, first = place.panel * columns;
  const EsuColumns mine = {first, static_cast<int>(min(int64_t{columns}, p.dim - first))};
  write_part(
      p, g, place, mine, sums, top, any,
      [&](int head, int i) { return head_column<T>(heads, g.lanes, head, i); },
      [&](int c) { return more_sums(p, c); });
}

// One block a query and head: its parts, in order.
__global__ void __launch_bounds__(kEsuThreads)
    esu_attention_merge_kernel(const DeviceEsuAttentionParams p, const EsuGeometry g) {
  __shared__ float tops[kEsuWarps];
  __shared__ float fades[kEsuThreads], part_sums[kEsuThreads];
  const int64_t query = g.query_begin + blockIdx.x / p.heads;
  const int64_t head = blockIdx.x % p.heads;
  const int64_t width = p.width;
  const int64_t partial_width = esu_partial_width(width);
  const int64_t stride = p.heads * partial_width;  // from part to part
  const float* partial = p.partial + (query * g.parts * p.heads + head) * partial_width;
  const float* statistics = partial + width;  // top, sum, any
  float top = -INFINITY;
  bool any = false;
  for (int part = threadIdx.x; part < g.parts; part += kEsuThreads) {
    top = fmaxf(top, statistics[part * stride]);
    any = any || statistics[part * stride + 2] != 0.0f;
  }
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, offset));
  }
  if (lane_index() == 0) tops[warp_index()] = top;
  any = __syncthreads_or(any);
#pragma unroll
  for (int warp = 0; warp < kEsuWarps; ++warp) top = fmaxf(top, tops[warp]);
  const float base = finite_base(top);

  float* context = p.context + (query * p.heads + head) * width;
  for (int64_t begin = 0; begin < width; begin += kEsuThreads) {
    const int64_t column = begin + threadIdx.x;
    float value = 0.0f, sum = 0.0f;
    for (int batch = 0; batch < g.parts; batch += kEsuThreads) {
      __syncthreads();
      if (const int part = batch + threadIdx.x; part < g.parts) {
        fades[threadIdx.x] = expf(statistics[part * stride] - base);
        part_sums[threadIdx.x] = statistics[part * stride + 1];
      }
      __syncthreads();
      const int count = min(kEsuThreads, g.parts - batch);
      for (int i = 0; i < count; ++i) {
        sum = fmaf(fades[i], part_sums[i], sum);
        if (column < width) value = fmaf(fades[i], partial[(batch + i) * stride + column], value);
      }
    }
    if (column < width) context[column] = any ? value / sum : 0.0f;
    if (column == 0) {
      float* softmax = p.softmax + (query * p.heads + head) * 2;
      softmax[0] = top;
      softmax[1] = any ? logf(sum) : 0.0f;
    }
  }
}

// Launches of portions of the queries: blocks(g, count) those of the first kernel.
template <class F>
int launch(const DeviceEsuAttentionParams& p, EsuGeometry g, CudaStream stream, const F& blocks) {
  const int64_t each = int64_t{g.parts} * g.groups * g.panels;
  return for_each_part(
      p.queries, each > p.heads ? each : p.heads, [&](int64_t begin, int64_t count) {
        g.query_begin = begin;
        if (const int error = blocks(g, count)) return error;
        if (g.parts > 1) {
          esu_attention_merge_kernel<<<grid_of(count * p.heads), kEsuThreads, 0, stream>>>(p, g);
        }
        return static_cast<int>(cudaGetLastError());
      });
}

template <class T, EsuForm kForm>
int launch_form(const DeviceEsuAttentionParams& p, CudaStream stream) {
  const int64_t more =
      more_words(p.behaviours) + esu_table_words(p.behaviours.feature_count, kTile);
  const size_t more_bytes = static_cast<size_t>(more) * sizeof(float4);
  return launch(p, esu_geometry<T>(p), stream, [&](const EsuGeometry& g, int64_t count) {
    const int64_t blocks = count * g.parts * g.groups * g.panels;
    esu_attention_kernel<T, kForm><<<grid_of(blocks), kEsuThreads, more_bytes, stream>>>(p, g);
    return static_cast<int>(cudaGetLastError());
  });
}

}  // namespace

int launch_esu_attention(const DeviceEsuAttentionParams& p, CudaStream stream) {
  if (p.queries == 0 || p.heads == 0) return cudaSuccess;
  bool mma = false;
  if (const int error = plan_esu_mma(p, &mma)) return error;
  if (mma) {
    const bool aligned = esu_is_aligned(p, true);
    EsuGeometry g = esu_geometry<Float16>(p);
    g.panels = 1;
    return launch(p, g, stream, [&](const EsuGeometry& part, int64_t count) {
      return launch_esu_mma(p, part, aligned, count, stream);
    });
  }
  return with_esu_form(p, true, [&](auto form) {
    return launch_form<typename decltype(form)::Type, decltype(form)::kForm>(p, stream);
  });
}

}  // namespace longclock
