// SPDX-License-Identifier: Apache-2.0
// The time features, the time term s and its backward. The backward is deterministic: parts of a
// fixed size are summed each by one block, in an order that depends on nothing but the part, and
// a second kernel adds the parts in a fixed order. There are no atomics and no host round trip.
#include "longclock/common/launch.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/time/time_term.cuh"
#include "longclock/time_similarity/time_similarity.h"

namespace longclock {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kWarps = kBlockThreads / kWarp;
constexpr int kPart = kTimeSimilarityDevicePart;  // its features take 20 KB
constexpr int kUnitSums = kTimeFeatures + 2;      // of a hidden unit: dw1[4], db1, dw2
static_assert(kPart % kBlockThreads == 0);

// Of the time elapsed, any seconds are taken.
__device__ __forceinline__ TimePhi phi_of(int64_t delta, double per_unit, bool elapsed) {
  return time_phi(elapsed ? elapsed_delta(delta, 0) : delta, per_unit, elapsed);
}

template <class Int>
__global__ void __launch_bounds__(kBlockThreads)
    time_features_kernel(const Int* __restrict__ delta, int64_t count, double per_unit,
                         bool elapsed, float4* __restrict__ out) {
  for (int64_t i = grid_index(); i < count; i += grid_stride()) {
    const TimePhi f = phi_of(delta[i], per_unit, elapsed);
    out[i] = make_float4(f.x, f.root, f.square, f.log);
  }
}

template <class Int>
__global__ void __launch_bounds__(kBlockThreads)
    time_similarity_kernel(const Int* __restrict__ delta, int64_t count, double per_unit,
                           const TimeMlp mlp, float* __restrict__ out) {
  __shared__ SharedTimeTerm shared;
  load_time_mlps(mlp, 1, &shared);
  __syncthreads();
  for (int64_t i = grid_index(); i < count; i += grid_stride()) {
    out[i] = clock_similarity(shared, 0, mlp.hidden, phi_of(delta[i], per_unit, mlp.elapsed));
  }
}

// One block a part, whose features go to shared memory; then each warp takes its hidden units in
// turn, 32 elements at a time.
template <class Int>
__global__ void __launch_bounds__(kBlockThreads)
    time_similarity_backward_kernel(const Int* __restrict__ delta, const float* __restrict__ grad,
                                    int64_t count, double per_unit, const TimeMlp mlp,
                                    double* __restrict__ partial) {
  __shared__ SharedTimeTerm shared;
  __shared__ float part_x[kPart], part_root[kPart], part_square[kPart], part_log[kPart],
      part_grad[kPart];
  __shared__ double bias_sums[kWarps];
  load_time_mlps(mlp, 1, &shared);
  const int lane = lane_index(), warp = warp_index();
  const int size = mlp.hidden * kUnitSums + 1;
  const int64_t parts = time_similarity_backward_device_parts(count);

  for (int64_t part = blockIdx.x; part < parts; part += gridDim.x) {
    const int64_t begin = part * kPart;
    double bias_sum = 0.0;
#pragma unroll
    for (int i = threadIdx.x; i < kPart; i += kBlockThreads) {
      // Past the end: finite features and a gradient of 0, which contributes nothing.
      const bool inside = begin + i < count;
      const TimePhi f = phi_of(inside ? delta[begin + i] : 0, per_unit, mlp.elapsed);
      const float g = inside ? grad[begin + i] : 0.0f;
      part_x[i] = f.x;
      part_root[i] = f.root;
      part_square[i] = f.square;
      part_log[i] = f.log;
      part_grad[i] = g;
      bias_sum += g;
    }
    bias_sum = warp_sum(bias_sum);
    if (lane == 0) bias_sums[warp] = bias_sum;
    __syncthreads();
    // Laid out as the parameters: w1 [hidden, 4], b1 [hidden], w2 [hidden], b2.
    double* const out = partial + part * size;
    for (int j = warp; j < mlp.hidden; j += kWarps) {
      const float4 w1 = shared.w1[j];
      const float2 b1_w2 = shared.b1_w2[j];
      float unit[kUnitSums] = {};
      for (int i = lane; i < kPart; i += kWarp) {
        const TimePhi f = {part_x[i], part_root[i], part_square[i], part_log[i]};
        const float g = part_grad[i];
        const float h = time_hidden(w1, b1_w2.x, f);
        // Nothing, whatever the features: they may be infinite.
        if (h <= 0.0f || g == 0.0f) continue;
        const float gh = g * b1_w2.y;
        unit[0] = fmaf(gh, f.x, unit[0]);
        unit[1] = fmaf(gh, f.root, unit[1]);
        unit[2] = fmaf(gh, f.square, unit[2]);
        unit[3] = fmaf(gh, f.log, unit[3]);
        unit[4] += gh;
        unit[5] = fmaf(g, h, unit[5]);
      }
#pragma unroll
      for (int k = 0; k < kUnitSums; ++k) {
        const float sum = warp_sum(unit[k]);
        const int at = k < kTimeFeatures ? j * kTimeFeatures + k
                                         : mlp.hidden * k + j;  // b1 at 4 hidden, w2 at 5 hidden
        if (lane == k) out[at] = sum;
      }
    }
    if (threadIdx.x == 0) {
      double sum = 0.0;
      for (int w = 0; w < kWarps; ++w) sum += bias_sums[w];
      out[size - 1] = sum;
    }
    __syncthreads();
  }
}

// One block a parameter, in the order w1, b1, w2, b2: of kBlockThreads, or where there are fewer
// parts, of as many warps as have any.
__global__ void __launch_bounds__(kBlockThreads)
    time_similarity_backward_reduce_kernel(const double* __restrict__ partial, int64_t parts,
                                           int hidden, const TimeMlpGradient gradient) {
  __shared__ double sums[kWarps];
  const int size = hidden * kUnitSums + 1;
  double sum = 0.0;
#pragma unroll 4
  for (int64_t part = threadIdx.x; part < parts; part += kBlockThreads) {
    sum += partial[part * size + blockIdx.x];
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) sums[warp_index()] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < static_cast<int>(blockDim.x) / kWarp; ++w) sum += sums[w];
  const int at = blockIdx.x;
  const int b1 = hidden * kTimeFeatures, w2 = b1 + hidden, b2 = w2 + hidden;
  float* out = at < b1   ? gradient.w1 + at
               : at < w2 ? gradient.b1 + (at - b1)
               : at < b2 ? gradient.w2 + (at - w2)
                         : gradient.b2;
  *out = static_cast<float>(sum);
}

}  // namespace

int launch_time_features(const TimeFeaturesParams& p, CudaStream stream) {
  if (p.count == 0) return cudaSuccess;
  with_ints(p.delta, [&](auto* delta) {
    time_features_kernel<<<grid_for(p.count, kBlockThreads), kBlockThreads, 0, stream>>>(
        delta, p.count, 1.0 / p.unit, p.elapsed, reinterpret_cast<float4*>(p.out));
  });
  return cudaGetLastError();
}

int launch_time_similarity(const TimeSimilarityParams& p, CudaStream stream) {
  if (p.count == 0) return cudaSuccess;
  with_ints(p.delta, [&](auto* delta) {
    time_similarity_kernel<<<grid_for(p.count, kBlockThreads), kBlockThreads, 0, stream>>>(
        delta, p.count, 1.0 / p.mlp.unit, p.mlp, p.out);
  });
  return cudaGetLastError();
}

int launch_time_similarity_backward(const TimeSimilarityBackwardParams& p, CudaStream stream) {
  const int64_t parts = time_similarity_backward_device_parts(p.count);
  if (parts > 0) {
    with_ints(p.delta, [&](auto* delta) {
      time_similarity_backward_kernel<<<grid_for(parts, 1), kBlockThreads, 0, stream>>>(
          delta, p.grad, p.count, 1.0 / p.mlp.unit, p.mlp, p.partial);
    });
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  }
  const unsigned size = static_cast<unsigned>(time_mlp_size(p.mlp.hidden));
  const int64_t most = (parts + kWarp - 1) / kWarp * kWarp;
  const unsigned threads = parts < 1              ? kWarp
                           : most < kBlockThreads ? static_cast<unsigned>(most)
                                                  : kBlockThreads;
  time_similarity_backward_reduce_kernel<<<size, threads, 0, stream>>>(p.partial, parts,
                                                                       p.mlp.hidden, p.out);
  return cudaGetLastError();
}

}  // namespace longclock
