// SPDX-License-Identifier: Apache-2.0
// One element a thread and step; memory-bound. Dimensions come merged, so that contiguous and
// evenly strided tensors need no index arithmetic.
#include <type_traits>

#include "longclock/circular_delta/circular_delta.h"
#include "longclock/common/launch.cuh"
#include "longclock/time/clock.cuh"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;

struct Shape {
  int dims;  // 1..8
  int64_t sizes[kCircularDeltaMaxDims];
  int64_t a_strides[kCircularDeltaMaxDims];
  int64_t b_strides[kCircularDeltaMaxDims];
};

template <class A, class B, class Out>
__global__ void __launch_bounds__(kBlockThreads)
    circular_delta_kernel(const A* __restrict__ a, const B* __restrict__ b, Out* __restrict__ out,
                          int64_t count, const Clock clock, const Shape shape) {
  for (int64_t i = grid_index(); i < count; i += grid_stride()) {
    int64_t a_at = 0, b_at = 0, rest = i;
    for (int d = shape.dims - 1; d > 0; --d) {
      const int64_t before = rest / shape.sizes[d];
      const int64_t at = rest - before * shape.sizes[d];
      a_at += at * shape.a_strides[d];
      b_at += at * shape.b_strides[d];
      rest = before;
    }
    a_at += rest * shape.a_strides[0];
    b_at += rest * shape.b_strides[0];
    out[i] = clock_delta(clock, clock_time(clock, a[a_at]), clock_time(clock, b[b_at]));
  }
}

}  // namespace

int launch_circular_delta(const CircularDeltaParams& params, CudaStream stream) {
  int64_t count = 1;
  for (int d = 0; d < params.dims; ++d) count *= params.sizes[d];
  if (count == 0) return cudaSuccess;
  Shape shape = {};
  shape.dims = params.dims;
  for (int d = 0; d < params.dims; ++d) {
    shape.sizes[d] = params.sizes[d];
    shape.a_strides[d] = params.a_strides[d];
    shape.b_strides[d] = params.b_strides[d];
  }
  with_ints(params.a, [&](auto* a) {
    with_ints(params.b, [&](auto* b) {
      using Out =
          std::common_type_t<std::remove_cvref_t<decltype(*a)>, std::remove_cvref_t<decltype(*b)>>;
      circular_delta_kernel<<<grid_for(count, kBlockThreads), kBlockThreads, 0, stream>>>(
          a, b, static_cast<Out*>(params.out), count, make_clock(params.period), shape);
    });
  });
  return cudaGetLastError();
}

}  // namespace longclock
