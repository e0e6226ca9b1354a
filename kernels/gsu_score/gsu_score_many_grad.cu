// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/device.h"
#include "longclock/common/launch.cuh"
#include "longclock/gsu_score/gsu_score_columns.cuh"
#include "longclock/gsu_score/gsu_score_many_grad.h"
#include "longclock/gsu_score/gsu_score_weighted_rows.cuh"
#include "longclock/search/row_form.cuh"
#include "longclock/search/sequence_view.cuh"

namespace longclock {
namespace {

constexpr int64_t kMinCandidates = 16;
constexpr int kSumBlock = 64;  // behaviours of a block of a sum

// What the two products have in common: a sequence, its behaviours, and the gradients of its
// scores.
template <class T>
struct SequenceGradients {
  const DeviceSearchParams& p;
  const float* grad;    // [C, M], of the sequence
  int64_t first_query;  // of its candidates
  SequenceView view;
  bool aligned;  // rows of gradients lie in whole pieces of 16 bytes

  __device__ SequenceGradients(const DeviceGsuScoreBackwardParams& params, int64_t s)
      : p(params.search),
        grad(params.grad + s * p.candidates * p.columns),
        first_query(s * p.candidates),
        view(view_sequence(p, s)),
        aligned(p.columns % 4 == 0 && reinterpret_cast<uintptr_t>(params.grad) % 16 == 0) {}

  __device__ bool valid(unsigned m) const {
    return m < static_cast<unsigned>(view.length) && (!p.filtered || is_valid(p, view, m));
  }
  // Four gradients of a candidate, those whose bits are set in `valid`: the others are not read.
  __device__ float4 four(const float* at, unsigned valid) const {
    if (aligned && valid == 15) return __ldg(reinterpret_cast<const float4*>(at));
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = valid >> i & 1 ? __ldg(at + i) : 0.0f;
    return make_float4(values[0], values[1], values[2], values[3]);
  }
  __device__ unsigned valid_four(unsigned m) const {
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) bits |= static_cast<unsigned>(valid(m + i)) << i;
    return bits;
  }
};

// Of the gradient of queries: behaviours of one of its sums, block after block.
template <class T>
struct KeySource {
  static constexpr int kSumSteps = kSumBlock / kWeightedRows;  // of a block

  SequenceGradients<T> of;
  int first;       // candidate of the tile
  int sum;         // index of the sum
  int64_t column;  // of the panel

  __device__ unsigned behaviour(int step) const {
    const unsigned block = sum + static_cast<unsigned>(step / kSumSteps) * kGradSums;
    return block * kSumBlock + step % kSumSteps * kWeightedRows;
  }
  __device__ int steps() const {
    const unsigned length = of.view.length, blocks = (length + kSumBlock - 1) / kSumBlock;
    if (blocks <= static_cast<unsigned>(sum)) return 0;
    const int all = static_cast<int>((blocks - sum - 1) / kGradSums) * kSumSteps;  // but the last's
    const unsigned left = length - behaviour(all);
    return all + static_cast<int>(min((left + kWeightedRows - 1) / kWeightedRows,
                                      static_cast<unsigned>(kSumSteps)));
  }

  __device__ auto weights(int step, int four) const {
    const unsigned m = behaviour(step) + 4 * four, valid = of.valid_four(m);
    const float* const at = of.grad + first * of.p.columns + m;
    return [=, this](int line) {
      return of.four(at + line * of.p.columns, first + line < of.p.candidates ? valid : 0);
    };
  }
  // The row of a behaviour that is valid; none where its id is of no table.
  __device__ const T* key(unsigned m) const {
    const Behaviours& b = of.p.behaviours;
    const char* row = row_after(of.p, of.view.keys, m);
    if (b.ids) {
      const int64_t id = b.ids[of.view.position + m];
      if (!is_row(of.p, id)) return nullptr;
      row = static_cast<const char*>(b.keys) + id * int64_t{of.p.row_bytes};
    }
    return reinterpret_cast<const T*>(row);
  }
  __device__ uint4 piece(int step, int row, int piece) const {
    const unsigned m = behaviour(step) + row;
    if (!of.valid(m)) return make_uint4(0, 0, 0, 0);
    const T* const keys = key(m);
    constexpr uint32_t kNan = 0xffffffffu;
    if (keys == nullptr) return make_uint4(kNan, kNan, kNan, kNan);
    return load16<T, true>(keys, column + piece * kVector16<T>, of.p.behaviours.dim);
  }
  // The sum of one element, by itself.
  __device__ float exact(int line, int64_t d) const {
    float total = 0.0f;
    const float* const grad = of.grad + (first + line) * of.p.columns;
    for (int step = 0, all = steps(); step < all; ++step) {
      for (unsigned m = behaviour(step), end = m + kWeightedRows; m < end; ++m) {
        if (!of.valid(m)) continue;
        const T* const keys = key(m);
        total = fmaf(grad[m], keys == nullptr ? NAN : widen(keys[d]), total);
      }
    }
    return total;
  }
};

// Of the gradient of keys: candidates in order.
template <class T>
struct QuerySource {
  SequenceGradients<T> of;
  unsigned first;  // behaviour of the tile
  unsigned valid;  // of the four of this thread's weights
  int64_t column;  // of the panel

  __device__ auto weights(int step, int four) const {
    const int64_t c = step * kWeightedRows;
    const float* const at = of.grad + c * of.p.columns + first + 4 * four;
    return [=, this](int line) {
      return of.four(at + line * of.p.columns, c + line < of.p.candidates ? valid : 0);
    };
  }
  __device__ uint4 piece(int step, int row, int piece) const {
    const int64_t c = step * kWeightedRows + row;
    if (c >= of.p.candidates) return make_uint4(0, 0, 0, 0);
    return query_piece<T, true>(of.p, of.first_query + c,
                                static_cast<int>(column) + piece * kVector16<T>,
                                of.p.behaviours.dim);
  }
  __device__ float exact(int line, int64_t d) const {
    float total = 0.0f;
    const unsigned m = first + line;
    for (int64_t c = 0; of.valid(m) && c < of.p.candidates; ++c) {
      const int64_t at = (of.first_query + c) * of.p.query_dim + d;
      const float query = of.p.query_is_float
                              ? widen(narrow<T>(static_cast<const float*>(of.p.query)[at]))
                              : widen(static_cast<const T*>(of.p.query)[at]);
      total = fmaf(of.grad[c * of.p.columns + m], query, total);
    }
    return total;
  }
};

// Stores a lane's sums at row(line), or no row, in columns from `column` on; and again, one by one
// and added up without tensor cores, those that are not finite: they may be so for a rest that is
// NaN.
template <class Rows, class Source, class Row>
__device__ __forceinline__ void store_sums(Rows& rows, const Source& source, const Row& row) {
  const DeviceSearchParams& p = source.of.p;
  const int64_t dim = p.behaviours.dim;
  unsigned odd = 0;
  rows.take([&](int i, const float (&four)[4]) {
    const int64_t d = source.column + Rows::column_of(i);
    row(Rows::sum_of(i), [&](auto* to) {
      store_columns<std::remove_pointer_t<decltype(to)>, true>(to, d, dim, p.scale, four);
    });
    float zero = 0.0f;  // NaN where any is not finite
#pragma unroll
    for (const float value : four) zero = fmaf(value, 0.0f, zero);
    odd |= static_cast<unsigned>(zero != 0.0f && d < dim) << i;
  });
#pragma unroll 1
  for (; odd != 0; odd &= odd - 1) {
    const int i = __ffs(odd) - 1, line = Rows::sum_of(i);
#pragma unroll 1
    for (int64_t d = source.column + Rows::column_of(i), end = d + 4; d < end; ++d) {
      row(line, [&](auto* to) {
        to[d] = narrow<std::remove_pointer_t<decltype(to)>>(p.scale * source.exact(line, d));
      });
    }
  }
}

// One block for a tile of candidates, a panel of columns and a share of the sums.
template <class T, int kPanelWarps>
__global__ void __launch_bounds__(kWeightedThreads, 2)
    many_query_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int panels,
                           int tiles, int64_t first_tile) {
  if constexpr (kHasAsyncCopy) {
    using Rows = WeightedRows<T, kPanelWarps, true>;
    extern __shared__ __align__(16) char memory[];
    const DeviceSearchParams& p = params.search;
    const int64_t dim = p.behaviours.dim;
    const int panel = static_cast<int>(blockIdx.x % panels);
    const int part = static_cast<int>(blockIdx.x / panels % params.parts);
    const int64_t tile = first_tile + blockIdx.x / panels / params.parts;
    const int first = static_cast<int>(tile % tiles) * Rows::kSums;
    KeySource<T> source{{params, tile / tiles}, first, 0, int64_t{panel} * Rows::kColumns};
    Rows rows(*reinterpret_cast<typename Rows::Memory*>(memory));
    const bool several = params.parts > 1, floats = several || p.query_is_float;
    void* const out = several ? params.query_partial : params.query_grad;
    for (source.sum = part; source.sum < params.sums; source.sum += params.parts) {
      rows.add(source, source.steps());
      store_sums(rows, source, [&](int line, const auto& store) {
        if (first + line >= p.candidates) return;
        const int64_t q = source.of.first_query + first + line;
        const int64_t at = (several ? q * params.sums + source.sum : q) * dim;
        if (floats) {
          store(static_cast<float*>(out) + at);
        } else {
          store(static_cast<T*>(out) + at);
        }
      });
    }
  }
}

// One block for a tile of behaviours and a panel of columns. Writes every element.
template <class T, int kPanelWarps>
__global__ void __launch_bounds__(kWeightedThreads, 2)
    many_key_grad_kernel(const __grid_constant__ DeviceGsuScoreBackwardParams params, int panels,
                         int64_t tiles, int64_t first_tile) {
  if constexpr (kHasAsyncCopy) {
    using Rows = WeightedRows<T, kPanelWarps, false>;
    extern __shared__ __align__(16) char memory[];
    const DeviceSearchParams& p = params.search;
    const int panel = static_cast<int>(blockIdx.x % panels);
    const int64_t tile = first_tile + blockIdx.x / panels, s = tile / tiles;
    const unsigned first = static_cast<unsigned>(tile % tiles) * Rows::kSums;
    QuerySource<T> source{{params, s}, first, 0, int64_t{panel} * Rows::kColumns};
    source.valid = source.of.valid_four(first + threadIdx.x % (Rows::kSums / 4) * 4);
    Rows rows(*reinterpret_cast<typename Rows::Memory*>(memory));
    rows.add(source, static_cast<int>((p.candidates + kWeightedRows - 1) / kWeightedRows));
    T* const out =
        static_cast<T*>(params.key_grad) + (s * p.columns + int64_t{first}) * p.behaviours.dim;
    store_sums(rows, source, [&](int line, const auto& store) {
      if (first + line < p.columns) store(out + line * p.behaviours.dim);
    });
  }
}

// Calls f with the warps of a panel: two for rows of more than 64 columns.
template <class F>
void with_panel_warps(const DeviceSearchParams& p, const F& f) {
  if (p.behaviours.dim > 64) {
    f(std::integral_constant<int, 2>());
  } else {
    f(std::integral_constant<int, 1>());
  }
}

// launch(kernel, bytes of shared memory, sums of a tile, columns of a panel)
template <bool kBySum, class Launch>
void with_rows(const DeviceSearchParams& p, const Launch& launch) {
  with_panel_warps(p, [&](auto warps) {
    LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, {
      using Rows = WeightedRows<T, warps, kBySum>;
      const int bytes = static_cast<int>(sizeof(typename Rows::Memory));
      const int64_t panels = (p.behaviours.dim + Rows::kColumns - 1) / Rows::kColumns;
      if constexpr (kBySum) {
        launch(many_query_grad_kernel<T, warps>, bytes, int64_t{Rows::kSums}, panels);
      } else {
        launch(many_key_grad_kernel<T, warps>, bytes, int64_t{Rows::kSums}, panels);
      }
    });
  });
}

}  // namespace

int plan_many_grad(const DeviceSearchParams& p, bool* supported) {
  *supported = false;
  if (p.layout != SearchLayout::kDense || p.candidates < kMinCandidates || p.behaviours.dim == 0 ||
      p.columns == 0 || p.sequences == 0 || !search_is_aligned(p) ||
      reinterpret_cast<uintptr_t>(p.query) % 16 != 0) {
    return cudaSuccess;
  }
  return has_async_copy(many_key_grad_kernel<float, 1>, supported);
}

int many_query_grad_sums(const DeviceSearchParams& p, int* sums, int* parts) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  *sums = static_cast<int>(min((p.columns + kSumBlock - 1) / kSumBlock, int64_t{kGradSums}));
  with_rows<true>(p, [&](auto*, int, int64_t tile_sums, int64_t panels) {
    const int64_t tiles = p.sequences * ((p.candidates + tile_sums - 1) / tile_sums) * panels;
    const int64_t wanted = (4 * device.multiprocessors + tiles - 1) / tiles;
    *parts = static_cast<int>(min(max(wanted, int64_t{2}), int64_t{*sums}));
  });
  return cudaSuccess;
}

int launch_many_query_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const DeviceSearchParams& p = params.search;
  int error = cudaSuccess;
  with_rows<true>(p, [&](auto* kernel, int bytes, int64_t tile_sums, int64_t panels) {
    error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    const int64_t tiles = (p.candidates + tile_sums - 1) / tile_sums;
    const int64_t blocks = panels * params.parts;
    error = for_each_part(p.sequences * tiles, blocks, [&](int64_t first, int64_t count) {
      kernel<<<grid_of(count * blocks), kWeightedThreads, bytes, stream>>>(
          params, static_cast<int>(panels), static_cast<int>(tiles), first);
      return cudaGetLastError();
    });
  });
  return error;
}

int launch_many_key_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const DeviceSearchParams& p = params.search;
  int error = cudaSuccess;
  with_rows<false>(p, [&](auto* kernel, int bytes, int64_t tile_sums, int64_t panels) {
    error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    const int64_t tiles = (p.columns + tile_sums - 1) / tile_sums;
    error = for_each_part(p.sequences * tiles, panels, [&](int64_t first, int64_t count) {
      kernel<<<grid_of(count * panels), kWeightedThreads, bytes, stream>>>(
          params, static_cast<int>(panels), tiles, first);
      return cudaGetLastError();
    });
  });
  return error;
}

}  // namespace longclock
