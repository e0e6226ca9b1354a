// SPDX-License-Identifier: Apache-2.0
// What the kernels of esu_attention share: how rows of z lie over the threads of a block.
//
// A row is spread over `lanes` lanes of a warp (4 to 32, a power of two), a piece of 16 bytes each,
// so that one request of a warp reads 32 / lanes whole rows. Wider rows than that are cut into
// panels; a block computes whole dot products and keeps its own panel's columns of the results.
// A row serves the four heads of a group at once. The lanes of a row share the work that is not
// a column's: after sum_heads(), lane l has head l & 3.
#pragma once

#include "../circular_delta/clock.cuh"
#include "../common/vector16.cuh"
#include "../common/warp.cuh"
#include "../time_similarity/time_term.cuh"
#include "esu_attention.h"

namespace longclock {

constexpr int kEsuThreads = 128;
constexpr int kEsuWarps = kEsuThreads / kWarp;
constexpr int kEsuHeads = 4;  // of a group

// How rows are read: 16 bytes at a time where all rows lie at multiples of that, else by elements.
// The fast form has one panel and fits 64 registers, 8 blocks a multiprocessor.
enum class EsuForm { kFast, kWide, kAny };
template <EsuForm kForm>
constexpr bool kIsAligned = kForm != EsuForm::kAny;
template <EsuForm kForm>
constexpr int kEsuBlocks = kForm == EsuForm::kFast ? 5 : 3;

// Rows that a lane works on at once: what the registers hold.
template <class T>
constexpr int kEsuAtOnce = sizeof(T) == 4 ? 2 : 1;

// Depends on sizes alone, never on the device or the batch.
struct EsuGeometry {
  int lanes;   // of a row
  int panels;  // of `lanes` pieces
  int groups;  // of heads
  int chunks;  // of K
  int64_t query_begin;
  double per_unit;  // 1 / seconds of one x
};

// Blocks of one chunk lie side by side: they read the same rows.
struct EsuPlace {
  int64_t query;
  int chunk, group, panel;
};

__device__ __forceinline__ EsuPlace esu_place(const EsuGeometry& g) {
  unsigned rest = blockIdx.x;
  const unsigned panel = rest % g.panels;
  rest /= g.panels;
  const unsigned group = rest % g.groups;
  rest /= g.groups;
  return {g.query_begin + rest / g.chunks, static_cast<int>(rest % g.chunks),
          static_cast<int>(group), static_cast<int>(panel)};
}

// Quads of columns of a piece.
template <class T>
constexpr int kQuads = kVector16<T> / 4;

// ---- Rows of heads: u, and the gradient of the context
// -------------------------------------------

// Elements [at, at + kVector16<T>) of a row of floats.
template <class T, bool kAligned>
__device__ __forceinline__ void load_floats(const float* __restrict__ row, int64_t at, int64_t size,
                                            float (&out)[kVector16<T>]) {
#pragma unroll
  for (int quad = 0; quad < kQuads<T>; ++quad) {
    float values[4];
    widen16<float>(load16<float, kAligned>(row, at + 4 * quad, size), values);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[4 * quad + i] = values[i];
  }
}

// The same of u of one query and head, rounded to z's dtype; zeros past the last head.
template <class T, bool kAligned>
__device__ __forceinline__ void load_u(const EsuAttentionCudaParams& p, int64_t query, int64_t head,
                                       int64_t at, float (&out)[kVector16<T>]) {
  const int64_t dim = p.behaviours.dim;
  const int64_t size = head < p.heads ? dim : 0;
  const int64_t row = (query * p.heads + head) * dim;
  if (!p.u_is_float || sizeof(T) == sizeof(float)) {
    widen16<T>(load16<T, kAligned>(static_cast<const T*>(p.u) + row, at, size), out);
    return;
  }
  load_floats<T, kAligned>(static_cast<const float*>(p.u) + row, at, size, out);
#pragma unroll
  for (float& value : out) value = widen(narrow<T>(value));
}

// Four heads' columns of a panel in shared memory, lane by lane; [head][quad] of a lane's columns.
// An odd number of 16-byte words a lane: lanes that read the same place use different banks.
template <class T>
constexpr int kHeadsStride = kEsuHeads * kQuads<T> + 1;

// By all threads; load(head, lane, piece) gives a piece.
template <class T, class Load>
__device__ __forceinline__ void fill_heads(float4* heads, int lanes, const Load& load) {
  for (int i = threadIdx.x; i < kEsuHeads * lanes; i += kEsuThreads) {
    const int head = i / lanes, lane = i % lanes;
    float piece[kVector16<T>];
    load(head, lane, piece);
#pragma unroll
    for (int quad = 0; quad < kQuads<T>; ++quad) {
      const float* v = piece + 4 * quad;
      heads[lane * kHeadsStride<T> + head * kQuads<T> + quad] = make_float4(v[0], v[1], v[2], v[3]);
    }
  }
}

// Column `at` of a head in what fill_heads() wrote.
template <class T>
__device__ __forceinline__ float head_column(const float4* heads, int head, int at) {
  const int lane = at / kVector16<T>, in_piece = at % kVector16<T>;
  return reinterpret_cast<const float*>(
      heads)[(lane * kHeadsStride<T> + head * kQuads<T>)*4 + in_piece];
}

// ---- Dot products
// --------------------------------------------------------------------------------

// The four columns of a quad of a piece.
template <class T>
__device__ __forceinline__ float4 widen_quad(const uint4& bits, int quad) {
  if constexpr (sizeof(T) == 4) {
    return make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                       __uint_as_float(bits.w));
  } else {
    const uint32_t low = quad == 0 ? bits.x : bits.z, high = quad == 0 ? bits.y : bits.w;
    return make_float4(
        widen(T{static_cast<uint16_t>(low)}), widen(T{static_cast<uint16_t>(low >> 16)}),
        widen(T{static_cast<uint16_t>(high)}), widen(T{static_cast<uint16_t>(high >> 16)}));
  }
}

// Makes the compiler widen a piece anew: packed, it takes half of the registers.
__device__ __forceinline__ void keep_packed(uint4& bits) {
  asm volatile("" : "+r"(bits.x), "+r"(bits.y), "+r"(bits.z), "+r"(bits.w));
}

__device__ __forceinline__ float dot4(const float4& x, const float4& y, float sum) {
  return fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum))));
}

// sums[row][head] += this lane's columns of the products. Every dot product of a kernel adds its
// columns in this order, so that equal rows have equal sums. `heads` begins at this lane.
template <class T, int kRows>
__device__ __forceinline__ void add_products(const float4* heads, const uint4 (&z)[kRows],
                                             float (&sums)[kRows][kEsuHeads]) {
#pragma unroll
  for (int quad = 0; quad < kQuads<T>; ++quad) {
    float4 x[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row) x[row] = widen_quad<T>(z[row], quad);
#pragma unroll
    for (int head = 0; head < kEsuHeads; ++head) {
      const float4 y = heads[head * kQuads<T> + quad];
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        sums[row][head] = dot4(x[row], y, sums[row][head]);
      }
    }
  }
}

// The same over all panels, from global memory: x(at, out) and y(head, at, out) load pieces.
template <class T, class X, class Y>
__device__ __forceinline__ void add_all_products(int lane, const EsuGeometry& g, const X& x,
                                                 const Y& y, float (&sums)[kEsuHeads]) {
#pragma unroll 1
  for (int panel = 0; panel < g.panels; ++panel) {
    const int at = (panel * g.lanes + lane) * kVector16<T>;
    float a[kVector16<T>];
    x(at, a);
#pragma unroll
    for (int head = 0; head < kEsuHeads; ++head) {
      float b[kVector16<T>];
      y(head, at, b);
#pragma unroll
      for (int i = 0; i < kVector16<T>; ++i) sums[head] = fmaf(a[i], b[i], sums[head]);
    }
  }
}

// The sums over the lanes of a row; lane l gets that of head l & 3.
__device__ __forceinline__ float sum_heads(const float (&sums)[kEsuHeads], int lanes) {
  const int lane = lane_index();
  const bool odd = lane & 1, high = lane & 2;
  const float low2 =
      (odd ? sums[1] : sums[0]) + __shfl_xor_sync(kAllLanes, odd ? sums[0] : sums[1], 1);
  const float high2 =
      (odd ? sums[3] : sums[2]) + __shfl_xor_sync(kAllLanes, odd ? sums[2] : sums[3], 1);
  float sum = (high ? high2 : low2) + __shfl_xor_sync(kAllLanes, high ? low2 : high2, 2);
  for (int offset = kEsuHeads; offset < lanes; offset *= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, offset);
  }
  return sum;
}

// ---- Rows of behaviours
// --------------------------------------------------------------------------

// Where a row of z begins, in elements; or:
constexpr int64_t kInvalidRow = -1;  // masked out or past the end: never read
constexpr int64_t kMissingRow = -2;  // its id is in no table: not read, NaN

// A behaviour of the tile in two words of 16 bytes: its time features, and its row with s. Words of
// one kind lie together, so that lanes that read different rows use different banks.
struct EsuTile {
  float4* phi;
  int4* row;
};

struct EsuRow {
  int64_t begin;
  float s;
};
__device__ __forceinline__ EsuRow esu_row(const int4& word) {
  return {static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(word.y)) << 32 |
                               static_cast<uint32_t>(word.x)),
          __int_as_float(word.z)};
}

// Fills entry i with behaviour `at` of the block's chunk, or with an invalid one past K. Returns
// its delta, or -1 where it is not valid.
__device__ __forceinline__ int32_t read_behaviour(const EsuAttentionCudaParams& p, double per_unit,
                                                  const EsuPlace& place, int in_chunk,
                                                  const SharedTimeMlp& mlp, const EsuTile& tile,
                                                  int i) {
  const Behaviours& b = p.behaviours;
  const int64_t query = place.query, at = place.chunk * kEsuChunk + in_chunk;
  const int64_t position = query * p.k + at;
  if (at >= p.k || (b.mask != nullptr && b.mask[position] == 0)) {
    tile.phi[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    tile.row[i] = make_int4(-1, -1, 0, 0);
    return -1;
  }
  const int32_t period = static_cast<int32_t>(b.period);
  const int32_t delta = circular_delta(clock_time(b.key_time[position], period),
                                       clock_time(p.query_time[query], period), period);
  const TimePhi phi = time_phi(delta, per_unit);
  float s = time_similarity(mlp, phi);
  int64_t begin = query * p.z_query_stride + at * b.key_row_stride;
  if (b.ids) {
    const int64_t id = b.ids[position];
    const bool known = id >= 0 && id < p.table_rows;
    if (p.check) device_check(known, "ids must be in [0, N)", "esu_attention");
    begin = known ? id * b.key_row_stride : kMissingRow;
    if (!known) s = __int_as_float(0x7fc00000);  // NaN
  }
  tile.phi[i] = make_float4(phi.x, phi.root, phi.square, phi.log);
  tile.row[i] =
      make_int4(static_cast<int>(begin), static_cast<int>(begin >> 32), __float_as_int(s), 0);
  return delta;
}

// A piece of a row; zeros where it must not be read. `columns` points to the columns in row 0, of
// which `left` are left to the end of a row.
template <class T, bool kAligned>
__device__ __forceinline__ uint4 load_z(const T* columns, int left, int64_t begin) {
  return load16<T, kAligned>(columns + begin, 0, begin < 0 ? 0 : left);
}

// ---- Sums over a block
// ---------------------------------------------------------------------------

// Over the rows that a warp's lanes hold side by side.
__device__ __forceinline__ float sum_rows(float value, int lanes) {
  for (int offset = lanes; offset < kWarp; offset *= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

// Adds up all threads' sums of their columns into `heads`, laid out as by fill_heads(), warp by
// warp. By all threads; ends with a barrier.
template <class T>
__device__ __forceinline__ void merge_heads(float (&sums)[kEsuHeads][kVector16<T>], float4* heads,
                                            int lanes) {
  for (int offset = lanes; offset < kWarp; offset *= 2) {
#pragma unroll
    for (auto& row : sums) {
#pragma unroll
      for (float& value : row) value += __shfl_xor_sync(kAllLanes, value, offset);
    }
  }
  float4* to = heads + lane_index() * kHeadsStride<T>;
#pragma unroll 1
  for (int warp = 0; warp < kEsuWarps; ++warp) {
    if (warp == warp_index() && lane_index() < lanes) {
#pragma unroll
      for (int i = 0; i < kEsuHeads * kQuads<T>; ++i) {
        const float* v = sums[i / kQuads<T>] + i % kQuads<T> * 4;
        const float4 before = warp == 0 ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : to[i];
        to[i] = make_float4(before.x + v[0], before.y + v[1], before.z + v[2], before.w + v[3]);
        asm volatile("" ::: "memory");  // one after the other: the registers are full of sums
      }
    }
    __syncthreads();
  }
}

// ---- Launching
// -----------------------------------------------------------------------------------

template <class T>
EsuGeometry esu_geometry(const EsuAttentionCudaParams& p) {
  const int64_t pieces = (p.behaviours.dim + kVector16<T> - 1) / kVector16<T>;
  EsuGeometry g{};
  g.lanes = kEsuHeads;
  while (g.lanes < kWarp && g.lanes < pieces) g.lanes *= 2;
  g.panels = pieces <= kWarp ? 1 : static_cast<int>((pieces + kWarp - 1) / kWarp);
  g.groups = static_cast<int>(esu_head_groups(p.heads));
  g.chunks = static_cast<int>(esu_chunks(p.k));
  g.per_unit = 1.0 / p.behaviours.mlp.unit;
  return g;
}

template <class T>
EsuForm esu_form(const EsuAttentionCudaParams& p) {
  const Behaviours& b = p.behaviours;
  const bool aligned = aligned16(b.keys, b.key_row_stride, b.dim, b.dtype) &&
                       aligned16(b.keys, p.z_query_stride, b.dim, b.dtype) &&
                       aligned16(p.u, b.dim, b.dim, p.u_is_float ? DType::kFloat32 : b.dtype);
  return !aligned ? EsuForm::kAny : b.dim > kWarp * kVector16<T> ? EsuForm::kWide : EsuForm::kFast;
}

// Calls f(EsuInstance of the dtype and form) and returns its error.
template <class T, EsuForm form>
struct EsuInstance {
  using Type = T;
  static constexpr EsuForm kForm = form;
};
template <class F>
int with_esu_form(const EsuAttentionCudaParams& p, const F& f) {
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, {
    switch (esu_form<T>(p)) {
      case EsuForm::kFast:
        return f(EsuInstance<T, EsuForm::kFast>{});
      case EsuForm::kWide:
        return f(EsuInstance<T, EsuForm::kWide>{});
      case EsuForm::kAny:
        return f(EsuInstance<T, EsuForm::kAny>{});
    }
  });
  return cudaErrorInvalidValue;
}

// Calls f(first query, queries) for portions of at most `portion` queries whose grids, of
// `query_blocks` blocks a query, fit a launch. Returns the first error.
template <class F>
int for_each_portion(int64_t queries, int64_t portion, int64_t query_blocks, const F& f) {
  constexpr int64_t kMaxBlocks = 2147483647;
  const int64_t fits = kMaxBlocks / query_blocks;
  const int64_t step = fits < 1 ? 1 : fits < portion ? fits : portion;
  for (int64_t begin = 0; begin < queries; begin += step) {
    f(begin, queries - begin < step ? queries - begin : step);
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace longclock
