// SPDX-License-Identifier: Apache-2.0
// Keys picked out of blocks of behaviours, so that tiles are full whatever is masked or taken out.
#pragma once

#include "longclock/search/behaviour_block-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

inline constexpr int64_t kListKeys = 144;  // whole tiles at every level
static_assert(kListKeys % kTileRows == 0 && kListKeys % kRestRows == 0);

template <class T>
class KeyList {
  using Words = typename WordsOf<T>::Type;

 public:
  // Of behaviours whose first lies at `position`.
  KeyList(const Behaviours& b, const RowWords<Words>& words, int64_t position, Scratch* scratch)
      : b_(b), words_(words), position_(position) {
    rows_ = scratch->take<const char*>(kListKeys);
    index_ = scratch->take<int64_t>(kListKeys);
    s_ = scratch->take<float>(kListKeys);
    // Rows that are whole words as they lie are read from there.
    const bool as_they_lie = sizeof(T) == sizeof(typename Words::Element) &&
                             b.feature_count == words.looked_ups() &&
                             b.dim * static_cast<int64_t>(sizeof(T)) == 4 * words.joined();
    if (!as_they_lie) copies_ = scratch->take<float>(kListKeys * words.joined() + kLanes);
    for (int i = 0; i < words.looked_ups(); ++i) small_[i] = scratch->take<int32_t>(kListKeys);
  }

  // Behaviour i of the block, which is valid. `index`: from the start of the sequence.
  void append(const BehaviourBlock<T>& block, int64_t i, int64_t index) {
    if (b_.ids) prefetch_row(block.rows[i], b_.dim * static_cast<int64_t>(sizeof(T)));
    for (int f = 0; f < b_.feature_count; ++f) {
      if (words_.is_looked_up(f)) continue;
      prefetch_row(feature_row(f, index), b_.features[f].dim * static_cast<int64_t>(sizeof(T)));
    }
    for (int i = 0; i < words_.looked_ups(); ++i) {
      const IntArray& ids = b_.features[words_.looked_up(i).feature].ids;
      small_[i][size_] = static_cast<int32_t>(ids[position_ + index]);
    }
    s_[size_] = block.s[i];
    index_[size_] = index;
    append(reinterpret_cast<const char*>(block.rows[i]));
  }
  // A row alone.
  void append(const char* row) { rows_[size_++] = row; }
  void clear() { size_ = 0; }

  // Makes rows() words; nothing may be appended between it and clear().
  void widen() {
    if (copies_ == nullptr) return;
    for (int64_t i = 0; i < size_; ++i) {
      float* const copy = copies_ + i * words_.joined();
      float* to = RowWords<Words>::widen(reinterpret_cast<const T*>(rows_[i]), b_.dim, copy);
      for (int f = 0; f < b_.feature_count; ++f) {
        if (words_.is_looked_up(f)) continue;
        to = RowWords<Words>::widen(feature_row(f, index_[i]), b_.features[f].dim, to);
      }
      rows_[i] = reinterpret_cast<const char*>(copy);
    }
  }

  int64_t size() const { return size_; }
  const char* const* rows() const { return rows_; }
  const int64_t* index() const { return index_; }
  const float* s() const { return s_; }
  // Rows of the tables that are looked up.
  const int32_t* small(int i) const { return small_[i]; }

 private:
  const T* feature_row(int f, int64_t index) const {
    const Feature& feature = b_.features[f];
    const int64_t at = position_ + index;
    return static_cast<const T*>(feature.keys) +
           (feature.ids ? feature.ids[at] : at) * feature.row_stride;
  }

  const Behaviours& b_;
  const RowWords<Words>& words_;
  int64_t position_, size_ = 0;
  const char** rows_;
  int64_t* index_;
  float* s_;
  int32_t* small_[kMaxFeatures];
  float* copies_ = nullptr;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
