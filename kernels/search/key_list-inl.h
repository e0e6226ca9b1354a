// SPDX-License-Identifier: Apache-2.0
// Keys picked out of blocks of behaviours, so that tiles are full whatever is masked or taken out.
#pragma once

#include "longclock/search/behaviour_block-inl.h"
#include "longclock/search/int8_rows-inl.h"
#include "longclock/search/packed_tile-inl.h"

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
    scale_ = scratch->take<float>(kAreScaled<T> ? kListKeys : 0);
    if constexpr (kArePacked) {
      begins_ = scratch->take<int32_t>(kListKeys + kLanes);
      packed_ = scratch->take<float>(kListKeys * words.joined() + kLanes);
      return;
    }
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
    if constexpr (kAreScaled<T>) {
      const int64_t at = position_ + index;
      scale_[size_] = b_.key_scale[b_.ids ? b_.ids[at] : at];
    }
    s_[size_] = block.s[i];
    index_[size_] = index;
    append(reinterpret_cast<const char*>(block.rows[i]));
  }
  // A row alone.
  void append(const char* row) { rows_[size_++] = row; }
  // A row of the table alone, with its scale.
  void append_of_table(const char* row) {
    if constexpr (kAreScaled<T>) {
      const int64_t place = (row - static_cast<const char*>(b_.keys)) / b_.key_row_stride;
      scale_[size_] = b_.key_scale[place];
    }
    append(row);
  }
  void clear() { size_ = 0; }

  // Makes the rows words; nothing may be appended between it and clear().
  void widen() {
    if constexpr (kArePacked) {
      pack();
    } else if (copies_ != nullptr) {
      copy();
    }
  }

  // Goes on with the sums of kRows keys from `first` on, of which n are there, as add_tile does.
  template <int kRows>
  LONGCLOCK_INLINE void add(int64_t first, int64_t n, const float* panel, Vf (*sums)[2]) const {
    if constexpr (kArePacked) {
      const float* const tile = packed_ + first / kTileRows * packed_size(words_.joined());
      add_packed_tile<Words, kRows>(tile + first % kTileRows, panel, words_.joined(), sums);
    } else {
      const char* rows[kRows];
      for (int64_t a = 0; a < kRows; ++a) rows[a] = rows_[first + min_of(a, n - 1)];
      add_tile<Words, kRows>(rows, panel, words_.joined(), sums);
    }
  }
  // What the sums of key i begin with, and its products of sums.
  Vf begin(int64_t i) const {
    if constexpr (kArePacked) return (Vf)(Vi{} + begins_[i]);
    return Vf{};
  }
  Vf product(Vf sum, int64_t i) const {
    if constexpr (kAreScaled<T>) return Words::product(sum) * splat(scale_[i]);
    return Words::product(sum);
  }

  int64_t size() const { return size_; }
  const int64_t* index() const { return index_; }
  const float* s() const { return s_; }
  // Rows of the tables that are looked up.
  const int32_t* small(int i) const { return small_[i]; }

 private:
  // Whether words are those of int8, whose tiles are done soon.
  static constexpr bool kArePacked = Words::kElements == 4;

  // The sums begin with what the panel's 128 of every element add to them taken away.
  void pack() {
    static_assert(!kArePacked || kTileRows <= kLanes);
    for (int64_t first = 0; first < size_; first += kTileRows) {
      const T* rows[kTileRows];
      const int64_t n = min_of(kTileRows, size_ - first);
      for (int64_t a = 0; a < n; ++a) rows[a] = reinterpret_cast<const T*>(rows_[first + a]);
      const Vi sums = pack_tile<Words>(rows, n, b_.dim, packed_ + first * words_.joined()) * -128;
      std::memcpy(begins_ + first, &sums, sizeof(sums));
    }
  }

  void copy() {
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
  int32_t* begins_;  // of packed rows
  float* packed_;
  float* scale_;
  int32_t* small_[kMaxFeatures];
  float* copies_ = nullptr;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
