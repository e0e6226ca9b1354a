// SPDX-License-Identifier: Apache-2.0
// The time features and s() of one behaviour, on the device. Every kernel computes them with these
// functions, so that s has the same bits wherever it is needed.
#pragma once

#include <cuda_runtime.h>

#include "longclock/time/clock.cuh"
#include "longclock/time/time_term.h"

namespace longclock {

struct TimePhi {
  float x, root, square, log;
};

// log(1 + x) for x >= 0, within 2 ulp: 1 + x = 2^e (1 + f) with f in [sqrt(1/2) - 1, sqrt(2) - 1],
// f from x itself with one rounding, and a polynomial of relative error 1e-9. log1pf takes half as
// long again, for the sake of arguments that a distance cannot be. The coefficients are those of
// common/math-inl.h.
__device__ __forceinline__ float log_one_plus(float x) {
  const int exponent = (__float_as_int(x + 1.0f) - 0x3f3504f3) & static_cast<int>(0xff800000);
  const float power = __int_as_float(0x3f800000 - exponent);  // 2^-e
  const float f = fmaf(x, power, power - 1.0f);
  float p = 0.0691542476f;
  p = fmaf(p, f, -0.117898352f);
  p = fmaf(p, f, 0.118729658f);
  p = fmaf(p, f, -0.123843431f);
  p = fmaf(p, f, 0.142186582f);
  p = fmaf(p, f, -0.166692510f);
  p = fmaf(p, f, 0.200022265f);
  p = fmaf(p, f, -0.249999866f);
  p = fmaf(p, f, 0.333333105f);
  p = fmaf(p, f, -0.5f);
  return fmaf(static_cast<float>(exponent), 8.26295829e-8f, fmaf(f * f, p, f));  // ln 2 / 2^23
}

// elapsed: delta is one that elapsed_delta() gives.
__device__ __forceinline__ TimePhi time_phi(int64_t delta, double per_unit, bool elapsed) {
  float x = static_cast<float>(static_cast<double>(delta) * per_unit);
  if (elapsed) x = log_one_plus(x) * 1.44269504f;  // 1 / ln 2
  float root;  // within 2 ulp; without the branch of sqrtf for subnormal x
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
  return {x, root, x * x, log_one_plus(x)};
}

// The MLPs of all clocks in shared memory, one after the other, a hidden unit in two loads; and the
// query's time as the clocks see it.
struct SharedTimeTerm {
  float4 w1[kMaxTimeHidden];
  float2 b1_w2[kMaxTimeHidden];
  float b2[kMaxClocks];
  int32_t query_clock[kMaxClocks];
};

// By all threads of a block; the caller puts a barrier behind it.
__device__ __forceinline__ void load_time_mlps(const TimeMlp& first, int clocks,
                                               SharedTimeTerm* shared) {
  const int units = clocks * first.hidden;
  for (int i = threadIdx.x; i < units * kTimeFeatures; i += blockDim.x) {
    reinterpret_cast<float*>(shared->w1)[i] = first.w1[i];
  }
  for (int i = threadIdx.x; i < units; i += blockDim.x) {
    shared->b1_w2[i] = make_float2(first.b1[i], first.w2[i]);
  }
  if (threadIdx.x < clocks) shared->b2[threadIdx.x] = first.b2[threadIdx.x];
}

// The query's time on every clock. By one thread, or by several that agree.
template <bool kFewRegisters = false>
__device__ __forceinline__ void read_query_clocks(const DeviceClock* clocks, int count,
                                                  int64_t query_time, SharedTimeTerm* shared) {
#pragma unroll 1
  for (int c = 0; c < count; ++c) {
    if (clocks[c].clock.period == kElapsed) continue;
    shared->query_clock[c] = clock_time<kFewRegisters>(clocks[c].clock, query_time);
  }
}

// What a clock sees between two times, of which `query_clock` is the second on a circle.
template <bool kFewRegisters = false>
__device__ __forceinline__ int32_t time_delta(const Clock& clock, int64_t time, int64_t query_time,
                                              int32_t query_clock) {
  if (clock.period == kElapsed) return elapsed_delta(time, query_time);
  return clock_delta(clock, clock_time<kFewRegisters>(clock, time), query_clock);
}

// The input of a hidden unit's ReLU.
__device__ __forceinline__ float time_hidden(const float4& w1, float b1, const TimePhi& phi) {
  float h = fmaf(w1.x, phi.x, b1);
  h = fmaf(w1.y, phi.root, h);
  h = fmaf(w1.z, phi.square, h);
  return fmaf(w1.w, phi.log, h);
}

// NaN passes, as through torch's relu.
__device__ __forceinline__ float time_relu(float h) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float positive;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(positive) : "f"(h));
  return positive;
#else
  return h <= 0.0f ? 0.0f : h;
#endif
}

// What clock c adds to s(). kUnroll: hidden units whose weights are loaded together; fewer take
// fewer registers.
template <int kUnroll = 4>
__device__ __forceinline__ float clock_similarity(const SharedTimeTerm& term, int c, int hidden,
                                                  const TimePhi& phi) {
  float s = term.b2[c];
  const float4* const w1 = term.w1 + c * hidden;
  const float2* const b1_w2 = term.b1_w2 + c * hidden;
#pragma unroll(kUnroll)
  for (int j = 0; j < hidden; ++j) {
    const float2 unit = b1_w2[j];
    s = fmaf(unit.y, time_relu(time_hidden(w1[j], unit.x, phi)), s);
  }
  return s;
}

// s() of a behaviour: the sum over clocks, in order.
__device__ __forceinline__ float time_similarity(const SharedTimeTerm& term,
                                                 const DeviceClock* clocks, int count, int hidden,
                                                 int64_t time, int64_t query_time) {
  float sum = 0.0f;
#pragma unroll 1
  for (int c = 0; c < count; ++c) {
    const Clock& clock = clocks[c].clock;
    const int32_t delta = time_delta(clock, time, query_time, term.query_clock[c]);
    const TimePhi phi = time_phi(delta, clocks[c].per_unit, clock.period == kElapsed);
    const float s = clock_similarity(term, c, hidden, phi);
    sum = c == 0 ? s : sum + s;
  }
  return sum;
}

}  // namespace longclock
