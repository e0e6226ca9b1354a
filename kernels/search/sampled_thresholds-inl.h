// SPDX-License-Identifier: Apache-2.0
// Bars for many candidates at once, from samples of their scores: a lane is a candidate. Scores are
// rounded to a byte each, so that a panel's samples stay in the first-level cache while the rank-th
// largest of every lane is built up bit by bit, by counting.
#pragma once

#include "longclock/search/tile-inl.h"
#include "longclock/selection/score_levels-inl.h"
#include "longclock/selection/topk_buffer-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

static_assert(kByteLanes == 2 * kPanelLanes);  // two rows of a panel's bytes

constexpr int64_t sampled_codes(int64_t n) { return round_up(n, 2) * kPanelLanes; }

// How many of codes [n, kPanelLanes] are `at_least` or more, n even, added up in `counts`.
inline void count_codes(const uint8_t* codes, int64_t n, const uint8_t* at_least, int32_t* counts) {
  Vb threshold;
  std::memcpy(&threshold, at_least, kPanelLanes);
  std::memcpy(reinterpret_cast<uint8_t*>(&threshold) + kPanelLanes, at_least, kPanelLanes);
  for (int64_t l = 0; l < kPanelLanes; ++l) counts[l] = 0;
  for (int64_t i = 0; i < n;) {
    const int64_t end = min_of(n, i + 2 * 255);  // what a byte can count
    Vb count{};
    for (; i < end; i += 2) count -= (Vb)(load_raw<Vb>(codes + i * kPanelLanes) >= threshold);
    for (int64_t l = 0; l < kPanelLanes; ++l) counts[l] += count[l] + count[kPanelLanes + l];
  }
}

// For each of kPanelLanes columns of scores [n, kPanelLanes], a threshold that at least `rank` of
// the n scores pass (they are not at most the threshold), and a quarter more where that is soon
// found; -inf where fewer than rank scores differ from the smallest. codes: room for
// sampled_codes(n).
inline void sampled_thresholds(const float* scores, int64_t n, int64_t rank, uint8_t* codes,
                               float* thresholds) {
  const int64_t most = rank + rank / 4;
  constexpr int kRounds = 3;
  alignas(64) float low[kPanelLanes], width[kPanelLanes];
  for (int64_t h = 0; h < kPanelLanes; h += kLanes) {
    ScoreRange range;
    for (int64_t i = 0; i < n; ++i) range.include(load(scores + i * kPanelLanes + h));
    store(range.low(), low + h);
    store(range.high() - range.low(), width + h);
  }
  for (int64_t l = 0; l < kPanelLanes; ++l) thresholds[l] = -__builtin_inff();
  for (int64_t l = 0; l < (n % 2) * kPanelLanes; ++l) codes[n * kPanelLanes + l] = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (int64_t h = 0; h < kPanelLanes; h += kLanes) {
      const ScoreLevels levels(load(low + h), load(width + h));
      for (int64_t i = 0; i < n; ++i) {
        levels.code(load(scores + i * kPanelLanes + h), codes + i * kPanelLanes + h);
      }
    }
    // The largest codes that enough samples reach.
    uint8_t reached[kPanelLanes] = {};
    int32_t count[kPanelLanes] = {};
    for (int bit = 128; bit > 0; bit /= 2) {
      uint8_t next[kPanelLanes];
      int32_t counts[kPanelLanes];
      for (int64_t l = 0; l < kPanelLanes; ++l) next[l] = reached[l] | static_cast<uint8_t>(bit);
      count_codes(codes, round_up(n, 2), next, counts);
      for (int64_t l = 0; l < kPanelLanes; ++l) {
        const bool enough = counts[l] >= rank;
        reached[l] = enough ? next[l] : reached[l];
        count[l] = enough ? counts[l] : count[l];
      }
    }
    // Half a level below, so that rounding keeps none of them from passing.
    bool fine = true;
    for (int64_t l = 0; l < kPanelLanes; ++l) {
      if (reached[l] == 0) continue;
      const float level = width[l] / 255.0f;
      thresholds[l] = low[l] + level * (static_cast<float>(reached[l]) - 0.5f);
      low[l] = thresholds[l];
      width[l] = 2 * level;
      fine = fine && count[l] <= most;
    }
    if (fine) break;
  }
}

// Samples of a candidate's scores, at most, and the least distance between two: enough for a good
// threshold, few enough that those of a task's candidates are a megabyte.
inline constexpr int64_t kMaxSamples = 1024;
inline constexpr int64_t kMinStep = 5;

// Every step-th of n behaviours, for the best k of which a threshold is wanted.
struct Sampling {
  Sampling(int64_t n, int64_t k)
      : step(max_of(kMinStep, (n + kMaxSamples - 1) / kMaxSamples)),
        count((n + step - 1) / step),
        rank(sampled_rank(static_cast<float>(k) / static_cast<float>(step))) {}
  // Whether `valid` samples are enough for a threshold.
  bool pays(int64_t valid) const { return 2 * rank <= valid; }
  int64_t step, count, rank;
};

// Gives the empty buffers of n candidates, a panel at most, the thresholds that `valid` of their
// scores make.
inline void set_sampled_thresholds(const float* scores, int64_t valid, const Sampling& sampling,
                                   int64_t k, uint8_t* codes, int64_t n, TopKBuffer* best) {
  alignas(64) float thresholds[kPanelLanes];
  sampled_thresholds(scores, valid, sampling.rank, codes, thresholds);
  for (int64_t i = 0; i < n; ++i) best[i] = TopKBuffer(best[i].entries(), k, thresholds[i]);
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
