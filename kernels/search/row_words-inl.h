// SPDX-License-Identifier: Apache-2.0
// Behaviours as 32-bit words side by side: those of features that are looked up, those of the
// behaviours' own rows, then those of the other features. A product begins with the sum of the
// products of what is looked up, and goes on as one chain along the rest.
#pragma once

#include "longclock/search/behaviours.h"
#include "longclock/search/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Whether a feature's table is so small beside a history that a product with each of its rows,
// looked up, is less work than one with each behaviour's. `most`: rows whose products stay in a
// near cache.
inline bool is_small(const Feature& f, int64_t length, int64_t most) {
  return f.ids && f.table_rows <= most && 2 * f.table_rows <= length;
}

template <class Words>
class RowWords {
 public:
  // Rows of a table whose products with a panel of candidates stay in the first-level cache.
  static constexpr int64_t kMaxSmall = 256;

  struct LookedUp {
    int feature;
    int64_t begin, count;  // words
  };

  // Of behaviours of a group that has `length` of them.
  RowWords(const Behaviours& b, int64_t length) : b_(b) {
    for (int f = 0; f < b.feature_count; ++f) {
      is_looked_up_[f] = is_small(b.features[f], length, kMaxSmall);
      if (!is_looked_up_[f]) continue;
      const int64_t words = Words::words(b.features[f].dim);
      looked_up_[looked_ups_++] = {f, joined_begin_, words};
      joined_begin_ += words;
    }
    joined_ = Words::words(b.dim);
    for (int f = 0; f < b.feature_count; ++f) {
      if (!is_looked_up_[f]) joined_ += Words::words(b.features[f].dim);
    }
  }
  int64_t count() const { return joined_begin_ + joined_; }
  // Words that are not looked up.
  int64_t joined() const { return joined_; }
  int64_t joined_begin() const { return joined_begin_; }
  bool is_looked_up(int feature) const { return is_looked_up_[feature]; }
  int looked_ups() const { return looked_ups_; }
  const LookedUp& looked_up(int i) const { return looked_up_[i]; }

  // Of a query: floats, those of each feature, and before them those of the row, padded with zeros
  // to a multiple of 16.
  void from_query(const float* query, float* out) const {
    float *looked_up = out, *joined = out + joined_begin_;
    const auto take = [&](int64_t dim, float** to) {
      const int64_t words = Words::words(dim);
      Words::from_floats(query, words, *to);
      query += round_up(dim, 16);
      *to += words;
    };
    take(b_.dim, &joined);
    for (int f = 0; f < b_.feature_count; ++f) {
      take(b_.features[f].dim, is_looked_up_[f] ? &looked_up : &joined);
    }
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
  int64_t joined_begin_ = 0, joined_;
  int looked_ups_ = 0;
  LookedUp looked_up_[kMaxFeatures];
  bool is_looked_up_[kMaxFeatures];
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
