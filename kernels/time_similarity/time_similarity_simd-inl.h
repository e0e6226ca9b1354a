// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/common/ints-inl.h"
#include "longclock/common/memory-inl.h"
#include "longclock/time/clock.h"
#include "longclock/time/time_term-inl.h"
#include "longclock/time_similarity/time_similarity.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

template <class Int>
void read_features(const Int* delta, int64_t n, double unit, bool elapsed, TimeFeatureBlock* f) {
  if (!elapsed) return time_features(delta, n, unit, false, f);
  int32_t kept[kTimeBlock];
  for (int64_t i = 0; i < n; ++i) kept[i] = elapsed_delta(delta[i], 0);
  time_features(kept, n, unit, true, f);
}

}  // namespace

void time_features(const TimeFeaturesParams& p, int64_t begin, int64_t end) {
  TimeFeatureBlock f;
  for (int64_t at = begin; at < end; at += kTimeBlock) {
    const int64_t n = min_of(kTimeBlock, end - at);
    with_ints(p.delta, at, [&](auto* delta) { read_features(delta, n, p.unit, p.elapsed, &f); });
    for (int64_t i = 0; i < n; ++i) {
      float* out = p.out + (at + i) * kTimeFeatures;
      out[0] = f.x[i];
      out[1] = f.root[i];
      out[2] = f.square[i];
      out[3] = f.log[i];
    }
  }
}

void time_similarity(const TimeSimilarityParams& p, int64_t begin, int64_t end) {
  TimeFeatureBlock f;
  for (int64_t at = begin; at < end; at += kTimeBlock) {
    const int64_t n = min_of(kTimeBlock, end - at);
    with_ints(p.delta, at,
              [&](auto* delta) { read_features(delta, n, p.mlp.unit, p.mlp.elapsed, &f); });
    time_similarity(p.mlp, f, n, p.out + at);
  }
}

namespace {

// Halves first, as vectors.
inline double sum_in_double(Vf v) {
  alignas(64) double sums[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) sums[lane] = v[lane];
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

// Adds one block's share to gradient, laid out as time_mlp_size() says. grad holds zeros from n to
// the next multiple of kLanes, where the features may hold anything finite.
void add_block_gradient(const TimeMlp& mlp, const TimeFeatureBlock& f, const float* grad, int64_t n,
                        double* gradient) {
  double* w1 = gradient;
  double* b1 = w1 + mlp.hidden * kTimeFeatures;
  double* w2 = b1 + mlp.hidden;
  double* b2 = w2 + mlp.hidden;
  for (int j = 0; j < mlp.hidden; ++j) {
    const float* w = mlp.w1 + j * kTimeFeatures;
    const Vf weight = splat(mlp.w2[j]);
    Vf x_sum = {}, root_sum = {}, square_sum = {}, log_sum = {}, bias_sum = {}, out_sum = {};
    for (int64_t i = 0; i < n; i += kLanes) {
      const Vf x = load(f.x + i), root = load(f.root + i), square = load(f.square + i),
               log = load(f.log + i), g = load(grad + i);
      Vf h = fma(splat(w[0]), x, splat(mlp.b1[j]));
      h = fma(splat(w[1]), root, h);
      h = fma(splat(w[2]), square, h);
      h = fma(splat(w[3]), log, h);
      const Vi dead = (h <= splat(0.0f)) | (g == splat(0.0f));
      const Vf gh = dead ? Vf{} : g * weight;
      out_sum = fma(g, dead ? Vf{} : h, out_sum);
      bias_sum = bias_sum + gh;
      x_sum = fma(gh, x, x_sum);
      root_sum = fma(gh, root, root_sum);
      square_sum = fma(gh, square, square_sum);
      log_sum = fma(gh, log, log_sum);
    }
    w1[j * kTimeFeatures + 0] += sum_in_double(x_sum);
    w1[j * kTimeFeatures + 1] += sum_in_double(root_sum);
    w1[j * kTimeFeatures + 2] += sum_in_double(square_sum);
    w1[j * kTimeFeatures + 3] += sum_in_double(log_sum);
    b1[j] += sum_in_double(bias_sum);
    w2[j] += sum_in_double(out_sum);
  }
  Vf bias_sum = {};
  for (int64_t i = 0; i < n; i += kLanes) bias_sum = bias_sum + load(grad + i);
  *b2 += sum_in_double(bias_sum);
}

// The place of the i-th of all parameters: w1, b1, w2, b2.
inline float* gradient_at(const TimeMlpGradient& out, int hidden, int64_t i) {
  const int64_t b1 = int64_t{hidden} * kTimeFeatures, w2 = b1 + hidden, b2 = w2 + hidden;
  return i < b1 ? out.w1 + i : i < w2 ? out.b1 + (i - b1) : i < b2 ? out.w2 + (i - w2) : out.b2;
}

}  // namespace

void time_similarity_backward(const TimeSimilarityBackwardParams& p, int64_t begin, int64_t end) {
  TimeFeatureBlock f = {};
  alignas(64) float grad[kTimeBlock];
  const int64_t size = time_mlp_size(p.mlp.hidden);
  for (int64_t part = begin; part < end; ++part) {
    double* sum = p.partial + part * size;
    for (int64_t i = 0; i < size; ++i) sum[i] = 0.0;
    const int64_t part_end = min_of(p.count, (part + 1) * kTimeSimilarityPart);
    for (int64_t at = part * kTimeSimilarityPart; at < part_end; at += kTimeBlock) {
      const int64_t n = min_of(kTimeBlock, part_end - at);
      with_ints(p.delta, at,
                [&](auto* delta) { read_features(delta, n, p.mlp.unit, p.mlp.elapsed, &f); });
      for (int64_t i = 0; i < n; ++i) grad[i] = p.grad[at + i];
      for (int64_t i = n; i < round_up(n, kLanes); ++i) grad[i] = 0.0f;
      add_block_gradient(p.mlp, f, grad, n, sum);
    }
  }
}

void time_similarity_backward_reduce(const TimeSimilarityBackwardParams& p, int64_t begin,
                                     int64_t end) {
  const int64_t size = time_mlp_size(p.mlp.hidden);
  const int64_t parts = time_similarity_backward_parts(p.count);
  for (int64_t i = begin; i < end; ++i) {
    double sum = 0.0;
    for (int64_t part = 0; part < parts; ++part) sum += p.partial[part * size + i];
    *gradient_at(p.out, p.mlp.hidden, i) = static_cast<float>(sum);
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(time_features, TimeFeaturesParams)
LONGCLOCK_CPU_ENTRY(time_similarity, TimeSimilarityParams)
LONGCLOCK_CPU_ENTRY(time_similarity_backward, TimeSimilarityBackwardParams)
LONGCLOCK_CPU_ENTRY(time_similarity_backward_reduce, TimeSimilarityBackwardParams)
