// SPDX-License-Identifier: Apache-2.0
// The k nearest of any number of hashes. A distance is one of few integers, so the selection is
// counting: the k-th smallest is read off a histogram, and what is chosen is put in order by one.
#pragma once

#include "longclock/common/lanes-inl.h"
#include "longclock/common/memory-inl.h"
#include "longclock/search/hash_block-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// A behaviour's distance above its index.
using Neighbour = uint64_t;
inline Neighbour neighbour(uint64_t distance, int64_t index) {
  return distance << 32 | static_cast<uint64_t>(index);
}
inline uint64_t distance_of(Neighbour n) { return n >> 32; }
inline float score_of(Neighbour n) {
  return static_cast<float>(-static_cast<int64_t>(distance_of(n)));  // of 0, not -0
}
inline int64_t index_of(Neighbour n) { return static_cast<int64_t>(n & 0xffffffffu); }

// What one query has found.
struct Nearest {
  Neighbour* best;  // [k], by distance, then by index
  int64_t size;
  int64_t threshold;  // later behaviours count only below this distance
};

// Finds them for one query after another.
class NearestFinder {
 public:
  NearestFinder(int64_t k, int64_t words, Scratch* scratch)
      : k_(k),
        words_(words),
        bins_(64 * words + 1),
        distances_(scratch->take<uint64_t>(kHashBlock)),
        passed_(scratch->take<int32_t>(kHashBlock + kSlack)),
        sorted_(scratch->take<Neighbour>(k)),
        counts_(scratch->take<uint32_t>(2 * bins_)) {}

  // Adds the hashes of a block, which come after those before.
  void add(const HashBlock& block, const uint64_t* query, Nearest* nearest) {
    measure(block, query);
    if (nearest->size == 0) nearest->threshold = first_threshold(block.count);
    const int64_t passed = pass(block.count, nearest->threshold);
    if (passed > 0) merge(block, passed, nearest);
  }

 private:
  // Hashes whose comparisons are looked at together, and entries that are listed used or not.
  static constexpr int64_t kStep = 32, kSlack = 3;
  static_assert(kHashBlock % kStep == 0);

  // Bits in which each hash of the block differs from the query.
  void measure(const HashBlock& block, const uint64_t* query) const {
    words_ == 1 ? measure<1>(block, query) : measure<0>(block, query);
  }
  template <int64_t kWords>  // 0: any number
  void measure(const HashBlock& block, const uint64_t* query) const {
    const int64_t words = kWords > 0 ? kWords : words_, count = block.count;
    uint64_t* const distances = distances_;
    int64_t i = 0;
    for (; i + kWideLanes <= count; i += kWideLanes) {
      Vq bits = {};
      for (int64_t w = 0; w < words; ++w) {
        bits += popcount(load_raw<Vq>(block.words(w) + i) ^ query[w]);
      }
      std::memcpy(distances + i, &bits, sizeof(bits));
    }
    for (; i < count; ++i) {
      uint64_t bits = 0;
      for (int64_t w = 0; w < words; ++w) {
        bits += static_cast<uint64_t>(__builtin_popcountll(block.words(w)[i] ^ query[w]));
      }
      distances[i] = bits;
    }
  }

  // The distance below which are the k nearest, and no more than equals of the last of them.
  int64_t first_threshold(int64_t count) {
    if (count <= k_) return bins_;
    // Two halves, since an equal distance would wait for the count before it.
    uint32_t *const even = counts_, *const odd = counts_ + bins_;
    std::memset(counts_, 0, static_cast<size_t>(2 * bins_) * sizeof(uint32_t));
    for (int64_t i = 0; i + 1 < count; i += 2) {
      ++even[distances_[i]];
      ++odd[distances_[i + 1]];
    }
    if (count % 2 == 1) ++even[distances_[count - 1]];
    int64_t threshold = 0;
    for (int64_t found = 0; found < k_; ++threshold) found += even[threshold] + odd[threshold];
    return threshold;
  }

  // Lists what is nearer than the threshold, as places in the block; returns how many.
  int64_t pass(int64_t count, int64_t threshold) const {
    const uint64_t* const distances = distances_;
    int32_t* const passed = passed_;
    int64_t n = 0;
    for (int64_t first = 0; first < count; first += kStep) {
      uint32_t nearer = 0;
#pragma GCC unroll 16
      for (int64_t v = 0; v < kStep; v += kWideLanes) {
        nearer |= bitmask((Vl)(load_raw<Vl>(distances + first + v) < threshold)) << v;
      }
      if (count - first < kStep) nearer &= (1u << (count - first)) - 1u;
      int32_t* to = passed + n;
      n += __builtin_popcount(nearer);
#pragma GCC unroll 4
      for (int64_t i = 0; i < kSlack; ++i) {  // seldom are there more
        *to++ = static_cast<int32_t>(first) + __builtin_ctz(nearer | 1u << 31);
        nearer &= nearer - 1;
      }
      for (; nearer != 0; nearer &= nearer - 1) {
        *to++ = static_cast<int32_t>(first) + __builtin_ctz(nearer);
      }
    }
    return n;
  }

  // Puts them with the best in order of distance; what comes first among equals stays first, and
  // past the k-th nothing is kept.
  void merge(const HashBlock& block, int64_t passed, Nearest* nearest) {
    std::memset(counts_, 0, static_cast<size_t>(bins_) * sizeof(uint32_t));
    for (int64_t i = 0; i < nearest->size; ++i) ++counts_[distance_of(nearest->best[i])];
    for (int64_t i = 0; i < passed; ++i) ++counts_[distances_[passed_[i]]];
    uint32_t begin = 0;
    for (int64_t d = 0; d < bins_; ++d) {
      const uint32_t count = counts_[d];
      counts_[d] = begin;
      begin += count;
    }
    const auto put = [&](uint64_t distance, int64_t index) {
      const uint32_t at = counts_[distance]++;
      if (at < k_) sorted_[at] = neighbour(distance, index);
    };
    for (int64_t i = 0; i < nearest->size; ++i) {
      put(distance_of(nearest->best[i]), index_of(nearest->best[i]));
    }
    for (int64_t i = 0; i < passed; ++i) put(distances_[passed_[i]], block.place(passed_[i]));
    nearest->size = min_of(nearest->size + passed, k_);
    for (int64_t i = 0; i < nearest->size; ++i) nearest->best[i] = sorted_[i];
    nearest->threshold =
        nearest->size == k_ ? static_cast<int64_t>(distance_of(nearest->best[k_ - 1])) : bins_;
  }

  int64_t k_, words_;
  int64_t bins_;         // distances that there are
  uint64_t* distances_;  // [kHashBlock]
  int32_t* passed_;      // [kHashBlock], and kSlack
  Neighbour* sorted_;    // [k]
  uint32_t* counts_;     // [2, bins]
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
