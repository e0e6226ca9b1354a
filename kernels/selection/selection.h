// SPDX-License-Identifier: Apache-2.0
// The order of a selection as one 64-bit integer an element, and selection by it.
#pragma once

#include <cstdint>
#include <cstring>

#include "longclock/common/inline.h"

namespace longclock {

// (ordered score, ~index): larger is better. Scores descend, NaN above all, -0 equal to +0; among
// equals the smaller index is larger, so entries are distinct and any selection of them is unique.
// No entry is 0: that is the padding of rows with too few elements.
using TopKEntry = uint64_t;

LONGCLOCK_INLINE uint32_t ordered_score(float score) {
  if (score != score) return 0xffffffffu;
  uint32_t bits;
  score += 0.0f;  // -0 becomes +0
  std::memcpy(&bits, &score, 4);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}

LONGCLOCK_INLINE TopKEntry topk_entry_of(uint32_t ordered, int64_t index) {
  return uint64_t{ordered} << 32 | static_cast<uint32_t>(~static_cast<uint32_t>(index));
}

LONGCLOCK_INLINE TopKEntry topk_entry(float score, int64_t index) {
  return topk_entry_of(ordered_score(score), index);
}

LONGCLOCK_INLINE int64_t entry_index(TopKEntry entry) {
  return static_cast<uint32_t>(~static_cast<uint32_t>(entry));
}

LONGCLOCK_INLINE uint32_t ordered_score_of(TopKEntry entry) {
  return static_cast<uint32_t>(entry >> 32);
}

LONGCLOCK_INLINE float entry_score(TopKEntry entry) {
  const uint32_t ordered = ordered_score_of(entry);
  const uint32_t bits = ordered == 0xffffffffu  ? 0x7fc00000u
                        : ordered & 0x80000000u ? ordered & 0x7fffffffu
                                                : ~ordered;
  float score;
  std::memcpy(&score, &bits, 4);
  return score;
}

// Moves the k largest of n entries to the front, the k-th largest to place k - 1. 1 <= k <= n.
void select_largest(TopKEntry* entries, int64_t n, int64_t k);
// Moves the k largest of n entries to the front, sorted descending; returns how many those are.
int64_t sort_best(TopKEntry* entries, int64_t n, int64_t k);
// n <= k entries in their order into scores [k] and indices [k]; padded with (-inf, -1).
void write_sorted(const TopKEntry* entries, int64_t n, int64_t k, float* scores, int64_t* indices);
// The k best of n entries, sorted, into scores [k] and indices [k]; padded with (-inf, -1).
void write_topk(TopKEntry* entries, int64_t n, int64_t k, float* scores, int64_t* indices);

}  // namespace longclock
