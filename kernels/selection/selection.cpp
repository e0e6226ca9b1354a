// SPDX-License-Identifier: Apache-2.0
#include "longclock/selection/selection.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>

namespace longclock {

void select_largest(TopKEntry* entries, int64_t n, int64_t k) {
  std::nth_element(entries, entries + (k - 1), entries + n, std::greater<TopKEntry>());
}

namespace {

// Entries that sort_best takes at once: more than any buffer of a selection holds.
constexpr int64_t kMaxSorted = 4608;

// By distribution into 2^kBits buckets of equal width from the largest score to the smallest, then
// by insertion, which finds nearly everything in place. Only what may be among the best k is put
// in order. Where scores crowd into few buckets it is std::sort that does it.
template <int kBits>
void sort_best_by_buckets(TopKEntry* entries, int64_t n, int64_t k) {
  constexpr uint32_t kBuckets = 1u << kBits;
  constexpr uint32_t kCrowd = 32;
  // Four at a time, since each comparison waits for the one before; the last four overlap.
  constexpr int64_t kChains = 4;
  uint32_t most[kChains] = {}, least[kChains];
  std::fill(least, least + kChains, ~uint32_t{0});
  for (int64_t i = 0; i < n; i += kChains) {
    const TopKEntry* four = entries + std::min(i, n - kChains);
    for (int64_t c = 0; c < kChains; ++c) {
      most[c] = std::max(most[c], ordered_score_of(four[c]));
      least[c] = std::min(least[c], ordered_score_of(four[c]));
    }
  }
  const uint32_t top = *std::max_element(most, most + kChains);
  const int width = std::bit_width(top - *std::min_element(least, least + kChains));
  const int shift = std::max(width - kBits, 0);
  uint16_t bucket[kMaxSorted];
  uint32_t end[kBuckets] = {};  // its size, then its start, then its end
  for (int64_t i = 0; i < n; ++i) {
    bucket[i] = static_cast<uint16_t>((top - ordered_score_of(entries[i])) >> shift);
    ++end[bucket[i]];
  }
  // Those past the k-th lie in buckets that share one place and spoil each other there.
  uint32_t needed = 0, largest = 0, b = 0;
  for (; needed < k; ++b) {
    const uint32_t size = end[b];
    end[b] = needed;
    needed += size;
    largest = std::max(largest, size);
  }
  for (; b < kBuckets; ++b) end[b] = needed;
  TopKEntry sorted[kMaxSorted];
  for (int64_t i = 0; i < n; ++i) sorted[end[bucket[i]]++] = entries[i];
  if (largest > kCrowd) {
    std::sort(sorted, sorted + needed, std::greater<TopKEntry>());
  } else {
    for (int64_t i = 1; i < needed; ++i) {
      const TopKEntry entry = sorted[i];
      int64_t at = i;
      for (; at > 0 && sorted[at - 1] < entry; --at) sorted[at] = sorted[at - 1];
      sorted[at] = entry;
    }
  }
  std::copy(sorted, sorted + k, entries);
}

}  // namespace

int64_t sort_best(TopKEntry* entries, int64_t n, int64_t k) {
  if (k == 0) return 0;
  if (n > kMaxSorted) {
    if (n > k) select_largest(entries, n, k);
    n = std::min(n, k);
  }
  k = std::min(n, k);
  if (n < 32 || n > kMaxSorted) {
    std::sort(entries, entries + n, std::greater<TopKEntry>());
  } else if (n <= 512) {
    sort_best_by_buckets<9>(entries, n, k);
  } else {
    sort_best_by_buckets<11>(entries, n, k);
  }
  return k;
}

void write_sorted(const TopKEntry* entries, int64_t n, int64_t k, float* scores, int64_t* indices) {
  for (int64_t i = 0; i < n; ++i) {
    scores[i] = entry_score(entries[i]);
    indices[i] = entry_index(entries[i]);
  }
  for (int64_t i = n; i < k; ++i) {
    scores[i] = -std::numeric_limits<float>::infinity();
    indices[i] = -1;
  }
}

void write_topk(TopKEntry* entries, int64_t n, int64_t k, float* scores, int64_t* indices) {
  write_sorted(entries, sort_best(entries, n, k), k, scores, indices);
}

}  // namespace longclock
