// SPDX-License-Identifier: Apache-2.0
// The distinct rows of a table among the behaviours of a sequence: listeners play the same few
// thousand tracks again and again.
#pragma once

#include "longclock/search/behaviour_block-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

template <class T>
class DistinctRows {
 public:
  // As many as their products with a panel of candidates stay in a cache.
  static constexpr int64_t kMax = 16384;

  // Of the task's valid behaviours. Gives up, all() false, where rows do not repeat often
  // enough to be worth it: twice on average.
  DistinctRows(const Behaviours& b, const Group& group, int64_t begin, int64_t end,
               Scratch* scratch) {
    const int64_t n = end - begin, most = min_of(kMax, n / 2);
    int bits = 1;
    while ((int64_t{1} << bits) < 2 * most) ++bits;
    auto* block = scratch->take<BehaviourBlock<T>>(1);
    int32_t* places = scratch->take<int32_t>(int64_t{1} << bits);  // a row's number + 1, or 0
    for (int64_t i = 0; i < int64_t{1} << bits; ++i) places[i] = 0;
    rows_ = scratch->take<const char*>(most);
    row_of_ = scratch->take<int32_t>(n);
    s_ = scratch->take<float>(n);
    index_ = scratch->take<int64_t>(n);
    for (int64_t at = begin; at < end; at += kBehaviourBlock) {
      const int64_t count = min_of(kBehaviourBlock, end - at);
      read_block(b, group, at, count, block);
      for (int64_t i = 0; i < count; ++i) {
        if (!block->all_valid && block->valid[i] == 0) continue;
        const char* row = reinterpret_cast<const char*>(block->rows[i]);
        // Multiplicative hashing of the address; the next places follow where one is taken.
        uint64_t place = reinterpret_cast<uint64_t>(row) * 0x9e3779b97f4a7c15u >> (64 - bits);
        while (places[place] != 0 && rows_[places[place] - 1] != row) {
          place = (place + 1) & ((uint64_t{1} << bits) - 1);
        }
        if (places[place] == 0) {
          if (count_ == most) return;
          rows_[count_++] = row;
          places[place] = static_cast<int32_t>(count_);
        }
        row_of_[valid_] = places[place] - 1;
        s_[valid_] = block->s[i];
        index_[valid_++] = at + i;
      }
    }
    all_ = true;
  }

  bool all() const { return all_; }
  int64_t count() const { return count_; }
  const char* const* rows() const { return rows_; }
  // Valid behaviours, and of each its row's number, s, and index in the sequence.
  int64_t valid() const { return valid_; }
  const int32_t* row_of() const { return row_of_; }
  const float* s() const { return s_; }
  const int64_t* index() const { return index_; }

 private:
  bool all_ = false;
  int64_t count_ = 0, valid_ = 0;
  const char** rows_;
  int32_t* row_of_;
  float* s_;
  int64_t* index_;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
