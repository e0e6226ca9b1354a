// SPDX-License-Identifier: Apache-2.0
// The backward of esu_attention on CUDA cores, in the forward's layout: alpha is computed again in
// the one pass over z that the gradients need anyway, and a row's gradient is written while the row
// is there. u and the gradient of the context stay in shared memory, the sums of u's gradient in
// registers. Where there are more than four heads, a row's weights of each group wait in global
// memory, and a second kernel adds the groups up, in order.
#include "longclock/esu_attention/esu_attention_backward_merge.cuh"
#include "longclock/esu_attention/esu_attention_launch.cuh"
#include "longclock/esu_attention/esu_attention_mma.h"

namespace longclock {
namespace {

constexpr int kTile = 64;  // behaviours whose time terms are computed together
static_assert(kEsuPart % kTile == 0);

// What the clocks after the first take of the memory that a launch adds; the addresses of rows that
// have features lie behind it.
LONGCLOCK_INLINE int more_words(const Behaviours& b) {
  return b.time.clocks == 1 ? 0 : kTile + (b.time.clocks - 1) * kEsuHeads;
}

// What is known of a head before any behaviour is read.
struct HeadState {
  float top, log_sum;  // of the softmax
  float share;         // gradient . context
  bool exists;
};

// What the threads of a block share of the heads of its group.
struct GroupHeads {
  EsuHeadRows& u;  // then the sums of its gradient
  EsuHeadRows& grad;
  float4 (&time_grad)[kEsuHeads];
  float4* more_time_grad;  // of the clocks after the first, [clocks - 1, kEsuHeads]
  HeadState (&states)[kEsuHeads];
};

// Fills the states and the time features' gradients of the group's heads. By the first warp.
template <class T, EsuForm kForm, class Quad>
__device__ __forceinline__ void read_states(const DeviceEsuAttentionBackwardParams& b,
                                            const EsuGeometry& g, const EsuPlace& place, int lane,
                                            const Quad& grad_quad, const GroupHeads& heads) {
  const DeviceEsuAttentionParams& p = b.forward;
  // Summed as a row's product with the gradient is, so that their difference is exactly 0 where one
  // behaviour has all the weight.
  float products[kEsuHeads] = {};
#pragma unroll
  for (int head = 0; head < kEsuHeads; ++head) {
    const int64_t row = place.group * kEsuHeads + head;
#pragma unroll 1
    for (int panel = 0; panel < g.panels; ++panel) {
      const int column = panel * g.lanes * 4 + lane_column<T>(lane, g.lanes);
      const float4 grad = kIsFast<kForm> ? heads.grad[head][lane] : grad_quad(head, column);
      const float4 context = load_context<kIsAligned<kForm>>(
          p, p.context, place.query, lane_index() < g.lanes ? row : p.heads, column);
      products[head] = dot4(context, grad, products[head]);
    }
  }
  const float dot = sum_heads(products, g.lanes);
  if (lane_index() >= kEsuHeads) return;
  const int lane_head = lane_index();
  const int64_t head = place.group * kEsuHeads + lane_head;
  const float4 grad = load_context_time(p, b.grad, place.query, head, 0);
  const float4 context = load_context_time(p, p.context, place.query, head, 0);
  HeadState state = {0.0f, 0.0f, dot4(context, grad, dot), head < p.heads};
  float more = 0.0f;
#pragma unroll 1
  for (int c = 1; c < p.behaviours.time.clocks; ++c) {
    const float4 more_grad = load_context_time(p, b.grad, place.query, head, c);
    more = dot4(load_context_time(p, p.context, place.query, head, c), more_grad, more);
    heads.more_time_grad[(c - 1) * kEsuHeads + lane_head] = more_grad;
  }
  if (p.behaviours.time.clocks > 1) state.share += more;
  if (state.exists) {
    state.top = p.softmax[(place.query * p.heads + head) * 2];
    state.log_sum = p.softmax[(place.query * p.heads + head) * 2 + 1];
  }
  heads.states[lane_head] = state;
  heads.time_grad[lane_head] = grad;
}

// The products of two rows with the vectors of four heads, summed over columns: lane l has those of
// head l & 3.
template <class T, EsuForm kForm, class Quad>
__device__ __forceinline__ void head_products(const DeviceEsuAttentionParams& p,
                                              const EsuGeometry& g, const EsuTile& tile, int row,
                                              int lane, const int64_t (&begins)[kEsuRows],
                                              const float4 (&x)[kEsuRows], const EsuHeadRows& heads,
                                              const Quad& quad, float (&out)[kEsuRows]) {
  float products[kEsuRows][kEsuHeads] = {};
  if constexpr (kIsFast<kForm>) {
    add_products(heads, lane, x, products);
  } else {
    add_all_products<T, kForm>(p, tile, row, begins, lane, g, quad, products);
  }
#pragma unroll
  for (int i = 0; i < kEsuRows; ++i) out[i] = sum_heads(products[i], g.lanes);
}

// Rows `row` and `row + 1` of the tile, which begins at `begin` in the part: adds to u's gradient,
// leaves ds and the weights of the four heads in the tile's place, and writes the gradients of the
// rows where there is but one group. piece: what the lane reads of the panel; count: behaviours of
// the part.
template <class T, EsuForm kForm, class UQuad, class GradQuad>
__device__ __forceinline__ void grade_rows(const DeviceEsuAttentionBackwardParams& b,
                                           const EsuGeometry& g, const EsuPlace& place,
                                           const GroupHeads& heads, const EsuTile& tile,
                                           const float4* more_gain, int begin, int row, int count,
                                           const EsuPiece<kForm>& piece, int lane,
                                           const UQuad& u_quad, const GradQuad& grad_quad,
                                           float4 (&u_grad)[kEsuHeads]) {
  const DeviceEsuAttentionParams& p = b.forward;
  float4* const weights = reinterpret_cast<float4*>(tile.row);
  const EsuRow rows[kEsuRows] = {esu_row(tile.row[row]), esu_row(tile.row[row + 1])};
  const int64_t begins[kEsuRows] = {rows[0].begin, rows[1].begin};
  float4 x[kEsuRows];
  load_rows<T, kForm>(p, tile, row, begins, piece, lane, g.lanes, x);
  float alpha[kEsuRows], gain[kEsuRows];
  head_products<T, kForm>(p, g, tile, row, lane, begins, x, heads.u, u_quad, alpha);
#pragma unroll
  for (int i = 0; i < kEsuRows; ++i) alpha[i] += rows[i].s;
  head_products<T, kForm>(p, g, tile, row, lane, begins, x, heads.grad, grad_quad, gain);
  const int lane_head = lane_index() % kEsuHeads;
#pragma unroll
  for (int i = 0; i < kEsuRows; ++i) {
    gain[i] = dot4(tile.phi[row + i], heads.time_grad[lane_head], gain[i]);
  }
  if (p.behaviours.time.clocks > 1) {
#pragma unroll
    for (int i = 0; i < kEsuRows; ++i) gain[i] += (&more_gain[row + i].x)[lane_head];
  }
  const HeadState state = heads.states[lane_head];
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
  if (g.groups > 1 || b.z_grad == nullptr) return;
  float4 out[kEsuRows] = {};
  add_heads(heads.u, lane, ds, out);
  add_heads(heads.grad, lane, {weights[row], weights[row + 1]}, out);
#pragma unroll
  for (int i = 0; i < kEsuRows; ++i) {
    if (begins[i] == kInvalidRow) out[i] = zero4();
  }
  const int64_t dim = p.dim, first = place.first + begin + row;
  store_rows<T, kIsAligned<kForm>>(static_cast<T*>(b.z_grad) + first * dim, count - begin - row,
                                   piece.at, dim, lane, g.lanes, out);
}

// gain = phi . gradient, of four heads; or gain += it.
__device__ __forceinline__ void add_gain(const float4& phi, const float4* time_grad, bool add,
                                         float4* gain) {
  const float4 before = add ? *gain : zero4();
  *gain = make_float4(dot4(phi, time_grad[0], before.x), dot4(phi, time_grad[1], before.y),
                      dot4(phi, time_grad[2], before.z), dot4(phi, time_grad[3], before.w));
}

// Writes what thread threadIdx.x has of its behaviour of the tile, which begins at `begin` in the
// part: s's gradient where there is one group of heads, else ds and weights for the second kernel.
__device__ __forceinline__ void write_tile(const DeviceEsuAttentionBackwardParams& b,
                                           const EsuGeometry& g, const EsuPlace& place,
                                           const EsuTile& tile, int begin) {
  if (g.groups == 1) {
    if (b.s_grad == nullptr) return;
    b.s_grad[place.first + begin + threadIdx.x] = add4(0.0f, tile.phi[threadIdx.x]);
  } else if (b.weights != nullptr) {
    const int64_t of_group = (place.query - g.query_begin) * g.groups + place.group;
    float4* to = reinterpret_cast<float4*>(b.weights) +
                 (of_group * b.forward.k + place.part * kEsuPart + begin + threadIdx.x) * 2;
    to[0] = tile.phi[threadIdx.x];
    to[1] = reinterpret_cast<const float4*>(tile.row)[threadIdx.x];
  }
}

template <class T, EsuForm kForm>
__global__ void __launch_bounds__(kEsuThreads, kEsuBlocks<kForm>)
    esu_attention_backward_kernel(const DeviceEsuAttentionBackwardParams b, const EsuGeometry g) {
  constexpr bool kAligned = kIsAligned<kForm>;
  __shared__ EsuHeadRows u_rows, grad_rows;
  __shared__ float4 time_grad[kEsuHeads];
  __shared__ HeadState states[kEsuHeads];
  const DeviceEsuAttentionParams& p = b.forward;
  // Of the clocks after the first, which only a launch with several has: their products of phi with
  // the gradients of the four heads, of each behaviour of the tile, and these gradients.
  extern __shared__ float4 more_gain[];
  const GroupHeads heads = {u_rows, grad_rows, time_grad, more_gain + kTile, states};
  __shared__ EsuTime time;
  __shared__ float4 tile_phi[kTile];  // then ds of the four heads
  __shared__ int4 tile_row[kTile];    // then their weights
  __shared__ EsuPlace place;
  const EsuTile tile = {tile_phi, tile_row,
                        reinterpret_cast<const void**>(more_gain + more_words(p.behaviours)),
                        esu_table_stride(kTile)};
  if (threadIdx.x == 0) place = esu_place(p, g);
  __syncthreads();
  const int lane = lane_index() & (g.lanes - 1);
  const auto piece = piece_of<T, kForm>(p, tile.table_stride, place.panel, lane, g.lanes);
  const auto u_quad = [&](int head, int column) {
    return load_u<T, kAligned>(p, place.query, place.group * kEsuHeads + head, column);
  };
  const auto grad_quad = [&](int head, int column) {
    return load_context<kAligned>(p, b.grad, place.query, place.group * kEsuHeads + head, column);
  };
  load_time(p, g, place.query, &time);
  fill_heads<T>(heads.u, g, place.panel, u_quad);
  fill_heads<T>(heads.grad, g, place.panel, grad_quad);
  __syncthreads();
  if (warp_index() == 0) read_states<T, kForm>(b, g, place, lane, grad_quad, heads);
  if (p.behaviours.time.clocks > 1) __syncthreads();  // before these read what it wrote

  float4 u_grad[kEsuHeads] = {};
  const int count = part_count(p, g);
  for (int begin = 0; begin < count; begin += kTile) {
    if (threadIdx.x < kTile) {
      const int in_part = begin + static_cast<int>(threadIdx.x);
      const bool kept =
          b.s_grad != nullptr && place.panel == 0 && place.group == 0 && in_part < count;
      const auto see = [&](int c, int32_t delta, const float4& phi) {
        if (kept) b.s_delta[c * p.queries * p.k + place.first + in_part] = delta;
        if (c == 0) return;
        add_gain(phi, heads.more_time_grad + (c - 1) * kEsuHeads, c > 1, more_gain + threadIdx.x);
      };
      read_behaviour(p, g, place, in_part, count, time, tile, threadIdx.x, see);
      if constexpr (kHasFeatures<kForm>) {
        find_table_rows<T>(p, place, in_part, tile, threadIdx.x);
      }
    }
    __syncthreads();
    const int whole = min(kTile, count - begin);
    for (int step = 0; step < whole; step += row_step(g)) {
      grade_rows<T, kForm>(b, g, place, heads, tile, more_gain, begin, step + first_row(g), count,
                           piece, lane, u_quad, grad_quad, u_grad);
    }
    __syncthreads();
    if (place.panel == 0 && static_cast<int>(threadIdx.x) < whole) {
      write_tile(b, g, place, tile, begin);
    }
  }
  if (b.u_grad == nullptr) return;
  merge_heads(u_grad, heads.u, g.lanes);
  const int columns = g.lanes * 4, first = place.panel * columns;
  const EsuColumns mine = {first, static_cast<int>(min(int64_t{columns}, p.dim - first))};
  write_u_grad<T>(b, g, place, mine,
                  [&](int head, int i) { return head_column<T>(heads.u, g.lanes, head, i); });
}

// Launches of portions of the queries: blocks(g, count) those of the first kernel, rows(g, count)
// those of the second, of groups.row_blocks a query.
template <class T, class Blocks, class Rows>
int launch(const DeviceEsuAttentionBackwardParams& b, EsuGeometry g, CudaStream stream,
           const Blocks& blocks, const Rows& rows) {
  const DeviceEsuAttentionParams& p = b.forward;
  const bool by_groups = g.groups > 1 && (b.z_grad != nullptr || b.s_grad != nullptr) && p.k > 0;
  EsuGeometry of_rows = esu_geometry<T>(p);
  const int64_t block_rows = kPairs * kEsuRows * kEsuThreads / g.lanes;
  of_rows.parts = static_cast<int>((p.k + block_rows - 1) / block_rows);
  of_rows.groups = 1;
  const int64_t row_blocks = int64_t{of_rows.parts} * of_rows.panels;
  int64_t most = int64_t{g.parts} * g.groups * g.panels;
  if (p.heads > most) most = p.heads;
  if (row_blocks > most) most = row_blocks;
  const int64_t task_queries = esu_task_queries(p.queries, p.heads, p.k);
  return for_each_part(
      p.queries, task_queries, most, most_blocks(), [&](int64_t begin, int64_t count) {
        g.query_begin = of_rows.query_begin = begin;
        if (const int error = blocks(g, count)) return error;
        if (by_groups) rows(of_rows, grid_of(count * row_blocks));
        if (g.parts > 1 && b.u_grad != nullptr && p.heads > 0) {
          const unsigned merges = grid_of(count * p.heads);
          if (p.u_is_float) {
            esu_attention_backward_merge_kernel<float><<<merges, kEsuThreads, 0, stream>>>(b, g);
          } else {
            esu_attention_backward_merge_kernel<T><<<merges, kEsuThreads, 0, stream>>>(b, g);
          }
        }
        return static_cast<int>(cudaGetLastError());
      });
}

template <class T, EsuForm kForm>
int launch_form(const DeviceEsuAttentionBackwardParams& b, bool mma, CudaStream stream) {
  const DeviceEsuAttentionParams& p = b.forward;
  const int64_t more =
      more_words(p.behaviours) + esu_table_words(p.behaviours.feature_count, kTile);
  const size_t more_bytes = static_cast<size_t>(more) * sizeof(float4);
  EsuGeometry geometry = esu_geometry<T>(p);
  if (mma) geometry.panels = 1;
  const auto blocks = [&](const EsuGeometry& g, int64_t count) {
    if (mma) return launch_esu_backward_mma(b, g, kIsAligned<kForm>, count, stream);
    const unsigned grid = grid_of(count * g.parts * g.groups * g.panels);
    esu_attention_backward_kernel<T, kForm><<<grid, kEsuThreads, more_bytes, stream>>>(b, g);
    return static_cast<int>(cudaGetLastError());
  };
  return launch<T>(b, geometry, stream, blocks, [&](const EsuGeometry& g, unsigned grid) {
    esu_attention_backward_rows_kernel<T, kWithoutFeatures<kForm>>
        <<<grid, kEsuThreads, 0, stream>>>(b, g);
  });
}

}  // namespace

int launch_esu_attention_backward(const DeviceEsuAttentionBackwardParams& b, CudaStream stream) {
  const DeviceEsuAttentionParams& p = b.forward;
  if (p.queries == 0) return cudaSuccess;
  const int64_t dim = p.dim;
  const bool aligned = aligned16(b.grad, p.width, dim, DType::kFloat32) &&
                       aligned16(p.context, p.width, dim, DType::kFloat32) &&
                       aligned16(b.z_grad, dim, dim, p.behaviours.dtype);
  bool mma = false;
  if (const int error = plan_esu_mma(p, &mma)) return error;
  return with_esu_form(p, aligned, [&](auto form) {
    return launch_form<typename decltype(form)::Type, decltype(form)::kForm>(b, mma, stream);
  });
}

}  // namespace longclock
