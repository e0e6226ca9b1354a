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
  KeyList(const Behaviours& b, Scratch* scratch) : dim_(b.dim), gathered_(b.ids) {
    words_ = Words::words(dim_);
    rows_ = scratch->take<const char*>(kListKeys);
    index_ = scratch->take<int64_t>(kListKeys);
    s_ = scratch->take<float>(kListKeys);
    // Rows that are whole words as they lie are read from there.
    const bool as_they_lie = sizeof(T) == sizeof(typename Words::Element) &&
                             dim_ * static_cast<int64_t>(sizeof(T)) == 4 * words_;
    if (!as_they_lie) copies_ = scratch->take<float>(kListKeys * words_);
  }

  // Behaviour i of the block, which is valid. `index`: from the start of the sequence.
  void append(const BehaviourBlock<T>& block, int64_t i, int64_t index) {
    if (gathered_) prefetch_row(block.rows[i], dim_ * static_cast<int64_t>(sizeof(T)));
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
      float* copy = copies_ + i * words_;
      const T* row = reinterpret_cast<const T*>(rows_[i]);
      int64_t w = 0;
      for (; w + kLanes <= words_; w += kLanes) store(Words::load_words(row, w, dim_), copy + w);
      if (w < words_) {
        const Vf rest = Words::load_words(row, w, dim_);
        std::memcpy(copy + w, &rest, static_cast<size_t>(words_ - w) * 4);
      }
      rows_[i] = reinterpret_cast<const char*>(copy);
    }
  }

  int64_t size() const { return size_; }
  const char* const* rows() const { return rows_; }
  const int64_t* index() const { return index_; }
  const float* s() const { return s_; }

 private:
  int64_t dim_, words_, size_ = 0;
  bool gathered_;
  const char** rows_;
  int64_t* index_;
  float* s_;
  float* copies_ = nullptr;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
