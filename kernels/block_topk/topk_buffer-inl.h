// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../common/simd-inl.h"
#include "selection.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int64_t kTopKBlock = 256;

// Whole cache lines.
constexpr int64_t topk_capacity(int64_t k) {
  return round_up((2 * k > k + 512 ? 2 * k : k + 512) + kTopKBlock, 8);
}

// How many of a sample a bar must let pass, where so many of the best are expected in it: three
// standard deviations more, so that few bars turn out too high.
inline int64_t sampled_rank(float expected) {
  return static_cast<int64_t>(expected + 3.0f * __builtin_sqrtf(expected)) + 3;
}

// The best k of a stream of scores. Scores that beat the k-th best seen at the last clean-up are
// appended; a full buffer is cut to its best k, which lifts the bar. Exact for every input: the
// order of the data changes how often that happens, never the result.
class TopKBuffer {
 public:
  // entries: room for topk_capacity(k). k >= 1.
  TopKBuffer(TopKEntry* entries, int64_t k) : entries_(entries), k_(k) {}
  // Only scores above the bar count: exact where at least k are, which the caller must see to.
  TopKBuffer(TopKEntry* entries, int64_t k, float bar)
      : entries_(entries), k_(k), bar_entry_(topk_entry(bar, 0)), bar_(bar), full_(true) {}
  TopKBuffer() = default;

  // Up to kTopKBlock scores, of indices first .. first + n - 1, larger than all before. Where keep
  // is given, elements with a zero byte are not there. scores has room for n rounded up to kLanes.
  void push(const float* scores, const uint8_t* keep, int64_t n, int64_t first) {
    const Vf bar = splat(bar_);
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t lanes = smaller(kLanes, n - i);
      uint32_t bits = full_ ? bitmask(~(load(scores + i) <= bar)) : 0xffffu;
      bits &= (1u << lanes) - 1u;
      for (; bits != 0; bits &= bits - 1) {
        const int64_t at = i + __builtin_ctz(bits);
        if (keep != nullptr && keep[at] == 0) continue;
        const TopKEntry entry = topk_entry(scores[at], first + at);
        if (entry > bar_entry_) entries_[size_++] = entry;
      }
    }
    make_room();
  }

  // One score that passed bar(), in any order of indices; up to kTopKBlock between calls of
  // make_room(). Then all indices up to some must have been tried: what comes later and equals the
  // bar is worse.
  void add(float score, int64_t index) {
    const TopKEntry entry = topk_entry(score, index);
    if (entry > bar_entry_) entries_[size_++] = entry;
  }
  void make_room() {
    if (size_ > topk_capacity(k_) - kTopKBlock) cut();
  }
  // What is not at most this passes; NaN where everything does.
  float bar() const { return full_ ? bar_ : __builtin_nanf(""); }

  TopKEntry* entries() const { return entries_; }
  int64_t size() const { return size_; }

 private:
  void cut() {
    select_largest(entries_, size_, k_);
    size_ = k_;
    bar_entry_ = entries_[k_ - 1];
    bar_ = entry_score(bar_entry_);
    full_ = true;
  }

  TopKEntry* entries_ = nullptr;
  int64_t k_ = 0;
  int64_t size_ = 0;
  TopKEntry bar_entry_ = 0;
  float bar_ = 0.0f;
  bool full_ = false;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
