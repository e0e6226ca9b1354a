// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include "longclock/selection/score_levels-inl.h"
#include "longclock/selection/selection.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int64_t kTopKBlock = 256;

// Whole cache lines.
constexpr int64_t topk_capacity(int64_t k) {
  return round_up((2 * k > k + 512 ? 2 * k : k + 512) + kTopKBlock, 8);
}

// How many of a sample a threshold must let pass, where so many of the best are expected in it:
// three standard deviations more, so that few thresholds turn out too high.
inline int64_t sampled_rank(float expected) {
  return static_cast<int64_t>(expected + 3.0f * __builtin_sqrtf(expected)) + 3;
}

// The best k of a stream of scores. Scores above the threshold, which k seen before reach, are
// appended; a full buffer is cut to its best k, or little more, which lifts the threshold. Exact
// for every input: the order of the data changes how often that happens, never the result.
class TopKBuffer {
 public:
  // entries: room for topk_capacity(k). k >= 1.
  TopKBuffer(TopKEntry* entries, int64_t k) : entries_(entries), k_(k) {}
  // Only scores above the threshold count: exact where at least k are, which the caller must see
  // to.
  TopKBuffer(TopKEntry* entries, int64_t k, float threshold) : TopKBuffer(entries, k) {
    lift(best_of(threshold), threshold);
  }
  TopKBuffer() = default;
  // Scores from `least` on count, which at least k of those to come reach.
  static TopKBuffer reaching(TopKEntry* entries, int64_t k, float least) {
    TopKBuffer buffer(entries, k);
    buffer.lift(below_all_of(least), below(least));
    buffer.least_ = least;
    buffer.reaching_ = true;
    return buffer;
  }

  // A threshold that this score and all that equal it pass, whatever is made of numbers that are
  // not normal. NaN, which everything passes, for -inf.
  static float below(float score) {
    constexpr float kNormal = std::numeric_limits<float>::min();
    if (score >= -kNormal && score <= 2 * kNormal) return -2 * kNormal;
    return entry_score(below_all_of(score) - 1);
  }

  // Up to kTopKBlock scores, of indices first .. first + n - 1, larger than all before. Where valid
  // is given, elements with a zero byte are not there. scores has room for n rounded up to kLanes.
  void push(const float* scores, const uint8_t* valid, int64_t n, int64_t first) {
    for (int64_t i = 0; i < n; i += kLanes) {
      const Vf x = load(scores + i);
      uint32_t bits = full_ ? not_at_most(x, splat(bar_)) : ~0u;
      bits &= first_lanes(n - i);
      if (bits == 0) continue;
      if (valid != nullptr) {
        for (int64_t l = 0; l < min_of(kLanes, n - i); ++l) {
          if (valid[i + l] == 0) bits &= ~(1u << l);
        }
      }
      add(x, bits, lane_numbers() + static_cast<int32_t>(first + i));
      if (least_is_reached()) exclude_least();
    }
    make_room();
  }

  // One score that passed threshold(), in any order of indices; up to kTopKBlock between calls of
  // make_room(). Then all indices up to some must have been tried: what comes later and equals the
  // threshold is worse.
  void add(float score, int64_t index) {
    const TopKEntry entry = topk_entry(score, index);
    if (entry > bar_entry_) entries_[size_++] = entry;
  }
  // The same of those lanes whose bits are set.
  void add(Vf scores, uint32_t bits, Vi indices) {
#if defined(__AVX512F__)
    const Vi raw = (Vi)(scores + 0.0f);  // -0 becomes +0
    const Vi ordered =
        scores == scores ? raw ^ ((raw >> 31) | std::numeric_limits<int32_t>::min()) : Vi{} - 1;
    add_half(ordered, ~indices, 0, bits & 0xff);
    if (bits >> 8 != 0) add_half(ordered, ~indices, 1, bits >> 8);
#else
    for (; bits != 0; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      add(scores[lane], indices[lane]);
    }
#endif
  }
  void make_room() {
    if (size_ > topk_capacity(k_) - kTopKBlock) cut();
  }
  // Lifts the threshold once twice as many as are wanted have passed it: each time, half as many
  // of what follows pass. As make_room(), between blocks of indices.
  void tighten() {
    if (least_is_reached()) exclude_least();
    if (size_ >= max_of(2 * k_, kByteLanes)) cut();
  }
  bool passes_all() const { return !full_; }
  // What is not at most this passes; NaN where everything does.
  float threshold() const { return full_ ? bar_ : __builtin_nanf(""); }

  // Drops all but the best k, unsorted; returns how many those are.
  int64_t keep_best() {
    if (size_ > k_) {
      select_largest(entries_, size_, k_);
      size_ = k_;
    }
    return size_;
  }

  TopKEntry* entries() const { return entries_; }
  int64_t size() const { return size_; }

 private:
  // Every entry of this score is better.
  static TopKEntry below_all_of(float score) { return uint64_t{ordered_score(score)} << 32; }
  // No entry of this score is better.
  static TopKEntry best_of(float score) { return topk_entry(score, 0); }

  void lift(TopKEntry bar_entry, float threshold) {
    bar_entry_ = bar_entry;
    bar_ = threshold;
    full_ = true;
  }

  // The least score that counts no longer does once k are there that reach it, and come first.
  bool least_is_reached() const { return reaching_ && size_ >= k_; }
  void exclude_least() {
    reaching_ = false;
    lift(best_of(least_), least_);
  }

#if defined(__AVX512F__)
  void add_half(Vi ordered, Vi place, int half, uint32_t bits) {
    const Vq entries = wide_half(ordered, half) << 32 | wide_half(place, half);
    const __mmask8 which = static_cast<__mmask8>(bits) &
                           _mm512_cmpgt_epu64_mask((__m512i)entries, (__m512i)(Vq{} + bar_entry_));
    _mm512_storeu_si512(entries_ + size_, _mm512_maskz_compress_epi64(which, (__m512i)entries));
    size_ += __builtin_popcount(which);
  }
#endif

  void cut() {
    constexpr int64_t kMax = topk_capacity(2048) + kByteLanes;
    alignas(64) float scores[kMax];
    alignas(64) uint8_t codes[kMax];
    for (int64_t i = 0; i < size_; ++i) scores[i] = entry_score(entries_[i]);
    const float least = reached_by(scores, size_, k_, codes);
    const TopKEntry from = below_all_of(least);
    int64_t kept = 0;
    for (int64_t i = 0; i < size_; ++i) {
      const TopKEntry entry = entries_[i];
      entries_[kept] = entry;
      kept += entry > from;
    }
    size_ = kept;
    lift(best_of(least), least);
    if (size_ <= k_ + kTopKBlock) return;
    keep_best();
    lift(entries_[k_ - 1], entry_score(entries_[k_ - 1]));
  }

  TopKEntry* entries_ = nullptr;
  int64_t k_ = 0;
  int64_t size_ = 0;
  TopKEntry bar_entry_ = 0;
  float bar_ = 0.0f, least_ = 0.0f;
  bool full_ = false, reaching_ = false;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
