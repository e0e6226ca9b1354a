// SPDX-License-Identifier: Apache-2.0
// Behaviours as 32-bit words side by side: those of their own rows, then those of each feature.
#pragma once

#include "longclock/search/behaviours.h"
#include "longclock/search/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

template <class Words>
class RowWords {
 public:
  explicit RowWords(const Behaviours& b) : b_(b), count_(Words::words(b.dim)) {
    for (int f = 0; f < b.feature_count; ++f) count_ += Words::words(b.features[f].dim);
  }
  int64_t count() const { return count_; }

  // Of a query: floats, those of each feature, and before them those of the row, padded with zeros
  // to a multiple of 16.
  void from_query(const float* query, float* out) const {
    const auto take = [&](int64_t dim) {
      const int64_t words = Words::words(dim);
      Words::from_floats(query, words, out);
      query += round_up(dim, 16);
      out += words;
    };
    take(b_.dim);
    for (int f = 0; f < b_.feature_count; ++f) take(b_.features[f].dim);
  }

  // Of one row of `dim` elements; returns the end of its words, behind which it may write kLanes
  // more.
  template <class T>
  static float* widen(const T* row, int64_t dim, float* out) {
    const int64_t words = Words::words(dim);
    for (int64_t w = 0; w < words; w += kLanes) store(Words::load_words(row, w, dim), out + w);
    return out + words;
  }

 private:
  const Behaviours& b_;
  int64_t count_;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
