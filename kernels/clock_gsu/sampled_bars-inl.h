// SPDX-License-Identifier: Apache-2.0
// Bars for many candidates at once, from samples of their scores: a lane is a candidate, so the
// rank-th largest of every lane is searched for by its value, one comparison and one subtraction a
// sample and step, without sorting anything.
#pragma once

#include "../gsu_score/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Steps that go by the scores' values. Where those spread over many powers of two, or to infinity,
// the steps after them halve the number of floats between the ends, which takes 32 at most.
inline constexpr int kValueSteps = 12;
inline constexpr int kMostSteps = kValueSteps + 33;

// Signed integers that are ordered as the floats with these bits are, and back.
inline Vi ordered_bits(Vi bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

// The bits of a positive float, as a number, are linear in its logarithm between powers of two.
inline Vf rough_log(Vi count) {
  const Vf x = __builtin_convertvector(count, Vf) + 0.5f;
  return __builtin_convertvector((Vi)x, Vf);
}

// For each of kPanelLanes columns of scores [n, kPanelLanes], a bar that at least `rank` of the n
// scores pass (they are not at most the bar) and, where it is soon found, at most `most`. Any value
// where fewer than rank scores differ from the smallest.
inline void sampled_bars(const float* scores, int64_t n, int64_t rank, int64_t most, float* bars) {
  constexpr float kLargest = 1e38f;  // so that differences are finite
  Vf low[2], high[2];
  for (int h = 0; h < 2; ++h) {
    low[h] = splat(kLargest);
    high[h] = splat(-kLargest);
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int h = 0; h < 2; ++h) {
      const Vf x = load(scores + i * kPanelLanes + h * kLanes);
      low[h] = x < low[h] ? x : low[h];
      high[h] = x > high[h] ? x : high[h];
    }
  }
  for (int h = 0; h < 2; ++h) {
    low[h] = low[h] < -kLargest ? splat(-kLargest) : low[h];
    high[h] = high[h] > kLargest ? splat(kLargest) : high[h];
  }
  // At least rank scores pass `low`, fewer pass `high`; how many do, as logarithms.
  const Vf wanted = rough_log(Vi{} + static_cast<int32_t>((rank + most) / 2));
  Vf low_log[2], high_log[2];
  for (int h = 0; h < 2; ++h) {
    low_log[h] = rough_log(Vi{} + static_cast<int32_t>(n));
    high_log[h] = rough_log(Vi{});
  }
  Vi found[2] = {};
  for (int step = 0; step < kMostSteps; ++step) {
    Vf middle[2];
    for (int h = 0; h < 2; ++h) {
      if (step >= kValueSteps) {
        const Vi a = ordered_bits((Vi)low[h]), b = ordered_bits((Vi)high[h]);
        middle[h] = (Vf)ordered_bits((a & b) + ((a ^ b) >> 1));
      } else if (step % 3 == 2) {
        middle[h] = low[h] * 0.5f + high[h] * 0.5f;
      } else {  // as if the scores' tail were exponential
        const Vf share = (low_log[h] - wanted) / (low_log[h] - high_log[h]);
        middle[h] = low[h] + (high[h] - low[h]) * share;
      }
    }
    Vi count[2] = {};
    for (int64_t i = 0; i < n; ++i) {
      count[0] -= ~(load(scores + i * kPanelLanes) <= middle[0]);
      count[1] -= ~(load(scores + i * kPanelLanes + kLanes) <= middle[1]);
    }
    bool all = true;
    for (int h = 0; h < 2; ++h) {
      const Vi enough = count[h] >= static_cast<int32_t>(rank);
      const Vi done = found[h], log = (Vi)rough_log(count[h]);
      low[h] = enough & ~done ? middle[h] : low[h];
      low_log[h] = enough ? (Vf)log : low_log[h];
      high[h] = enough ? high[h] : middle[h];
      high_log[h] = enough ? high_log[h] : (Vf)log;
      found[h] |= enough & (count[h] <= static_cast<int32_t>(most));
      all = all && bitmask(found[h]) == (1u << kLanes) - 1u;
    }
    if (all) break;
  }
  for (int h = 0; h < 2; ++h) store(low[h], bars + h * kLanes);
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
