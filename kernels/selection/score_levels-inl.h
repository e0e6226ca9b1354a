// SPDX-License-Identifier: Apache-2.0
// Scores rounded to a byte, to find ranks among them by counting: the largest code that enough of
// them reach is built up bit by bit, with as many comparisons at once as a vector has bytes.
#pragma once

#include "longclock/common/lanes-inl.h"
#include "longclock/common/memory-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

typedef uint8_t LaneBytes __attribute__((vector_size(kLanes)));

// The smallest and the largest score, lane by lane, as numbers whose difference is finite. NaN is
// passed over.
class ScoreRange {
 public:
  void include(Vf score) {
    least_ = score < least_ ? score : least_;
    largest_ = score > largest_ ? score : largest_;
  }
  Vf low() const { return least_ < -kMax ? splat(-kMax) : least_; }
  Vf high() const { return largest_ > kMax ? splat(kMax) : largest_; }

 private:
  static constexpr float kMax = 1e38f;
  Vf least_ = splat(kMax), largest_ = splat(-kMax);
};

// Equal levels from `low` on; what is below or above is in the first or the last.
struct ScoreLevels {
  ScoreLevels(Vf low, Vf width) : low(low), per_unit(width > kMinWidth ? 255.0f / width : Vf{}) {}
  // Of kLanes scores, into as many bytes.
  void code(Vf score, uint8_t* to) const {
    Vf level = (score - low) * per_unit;
    level = level <= 255.0f ? level : splat(255.0f);  // NaN is above everything
    level = level < 0.0f ? Vf{} : level;
    const LaneBytes bytes = __builtin_convertvector(__builtin_convertvector(level, Vi), LaneBytes);
    std::memcpy(to, &bytes, sizeof(bytes));
  }
  static constexpr float kMinWidth = 1e-30f;  // its inverse is finite
  Vf low, per_unit;
};

// A value that at least `rank` of n values reach (NaN reaches everything), and not many more where
// they are spread evenly. 1 <= rank <= n. values and codes: room for n rounded up to kByteLanes.
inline float reached_by(float* values, int64_t n, int64_t rank, uint8_t* codes) {
  constexpr float kInfinity = __builtin_inff();
  const int64_t whole = round_up(n, kByteLanes);
  for (int64_t i = n; i < whole; ++i) values[i] = values[0];
  ScoreRange range;
  for (int64_t i = 0; i < whole; i += kLanes) range.include(load(values + i));
  const Vf lows = range.low(), highs = range.high();
  float low = lows[0], high = highs[0];
  for (int l = 1; l < kLanes; ++l) {
    low = lows[l] < low ? lows[l] : low;
    high = highs[l] > high ? highs[l] : high;
  }
  const ScoreLevels levels(splat(low), splat(high - low));
  for (int64_t i = 0; i < whole; i += kLanes) levels.code(load(values + i), codes + i);
  for (int64_t i = n; i < whole; ++i) codes[i] = 0;
  uint8_t reached = 0;
  for (int bit = 128; bit > 0; bit /= 2) {
    const uint8_t next = static_cast<uint8_t>(reached | bit);
    int64_t count = 0;
    for (int64_t i = 0; i < whole; i += kByteLanes) {
      count += count_at_least(load_raw<Vb>(codes + i), Vb{} + next);
    }
    if (count >= rank) reached = next;
  }
  Vf least = splat(kInfinity);
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Vf x = load(values + i);
    const Vi code = __builtin_convertvector(load_raw<LaneBytes>(codes + i), Vi);
    least = ((code >= reached) & (x < least)) ? x : least;
  }
  float value = kInfinity;
  for (int l = 0; l < kLanes; ++l) value = least[l] < value ? least[l] : value;
  return value;
}

// Lanes that scores are folded to for the best k of them: a value that k of the lanes' maxima reach
// is reached by k scores, and by hardly more than k where these are spread evenly.
constexpr int64_t fold_lanes(int64_t k) { return round_up(2 * k, 256); }

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
