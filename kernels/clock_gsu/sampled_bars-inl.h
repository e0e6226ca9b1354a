// SPDX-License-Identifier: Apache-2.0
// Bars for many candidates at once, from samples of their scores: a lane is a candidate. Scores are
// rounded to a byte each, so that a panel's samples stay in the first-level cache while the rank-th
// largest of every lane is built up bit by bit, by counting.
#pragma once

#include "../block_topk/score_levels-inl.h"
#include "../block_topk/topk_buffer-inl.h"
#include "../gsu_score/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

static_assert(kByteLanes == 2 * kPanelLanes);  // two rows of a panel's bytes

constexpr int64_t sampled_codes(int64_t n) { return round_up(n, 2) * kPanelLanes; }

// How many of codes [n, kPanelLanes] are `at_least` or more, n even, added up in `counts`.
inline void count_codes(const uint8_t* codes, int64_t n, const uint8_t* at_least, int32_t* counts) {
  Vb bar;
  std::memcpy(&bar, at_least, kPanelLanes);
  std::memcpy(reinterpret_cast<uint8_t*>(&bar) + kPanelLanes, at_least, kPanelLanes);
  for (int64_t l = 0; l < kPanelLanes; ++l) counts[l] = 0;
  for (int64_t i = 0; i < n;) {
    const int64_t end = smaller(n, i + 2 * 255);  // what a byte can count
    Vb count{};
    for (; i < end; i += 2) count -= (Vb)(load_raw<Vb>(codes + i * kPanelLanes) >= bar);
    for (int64_t l = 0; l < kPanelLanes; ++l) counts[l] += count[l] + count[kPanelLanes + l];
  }
}

// For each of kPanelLanes columns of scores [n, kPanelLanes], a bar that at least `rank` of the n
// scores pass (they are not at most the bar), and a quarter more where that is soon found; -inf
// where fewer than rank scores differ from the smallest. codes: room for sampled_codes(n).
inline void sampled_bars(const float* scores, int64_t n, int64_t rank, uint8_t* codes,
                         float* bars) {
  const int64_t most = rank + rank / 4;
  constexpr int kRounds = 3;
  alignas(64) float low[kPanelLanes], width[kPanelLanes];
  for (int64_t h = 0; h < kPanelLanes; h += kLanes) {
    ScoreRange range;
    for (int64_t i = 0; i < n; ++i) range.include(load(scores + i * kPanelLanes + h));
    store(range.low(), low + h);
    store(range.high() - range.low(), width + h);
  }
  for (int64_t l = 0; l < kPanelLanes; ++l) bars[l] = -__builtin_inff();
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
      bars[l] = low[l] + level * (static_cast<float>(reached[l]) - 0.5f);
      low[l] = bars[l];
      width[l] = 2 * level;
      fine = fine && count[l] <= most;
    }
    if (fine) break;
  }
}

// Samples of a candidate's scores, at most, and the least distance between two: enough for a good
// bar, few enough that those of a task's candidates are a megabyte.
inline constexpr int64_t kMostSamples = 1024;
inline constexpr int64_t kLeastStep = 5;

// Every step-th of n behaviours, for the best k of which a bar is wanted.
struct Sampling {
  Sampling(int64_t n, int64_t k)
      : step(larger(kLeastStep, (n + kMostSamples - 1) / kMostSamples)),
        count((n + step - 1) / step),
        rank(sampled_rank(static_cast<float>(k) / static_cast<float>(step))) {}
  // Whether `there` samples are enough for a bar.
  bool pays(int64_t there) const { return 2 * rank <= there; }
  int64_t step, count, rank;
};

// Gives the empty buffers of n candidates, a panel at most, the bars that `there` of their scores
// make.
inline void set_sampled_bars(const float* scores, int64_t there, const Sampling& sampling,
                             int64_t k, uint8_t* codes, int64_t n, TopKBuffer* best) {
  alignas(64) float bars[kPanelLanes];
  sampled_bars(scores, there, sampling.rank, codes, bars);
  for (int64_t i = 0; i < n; ++i) best[i] = TopKBuffer(best[i].entries(), k, bars[i]);
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
