// SPDX-License-Identifier: Apache-2.0
// A block of behaviours' hashes made ready for all queries of a task.
#pragma once

#include "longclock/common/ints-inl.h"
#include "longclock/common/scratch.h"
#include "longclock/common/simd-inl.h"
#include "longclock/search/behaviours.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Of one word each, they take half of the first-level cache.
inline constexpr int64_t kHashBlock = 2048;
inline constexpr int64_t kPrefetchHashes = 32;  // of a table

// The valid ones of up to kHashBlock behaviours: their first words, then their second, and so
// on, so that lanes are behaviours. Where they lie so, they are read where they lie.
class HashBlock {
 public:
  HashBlock(const Behaviours& b, Scratch* scratch) : b_(b) {
    const bool filtered = b.mask != nullptr || b.exclude_future;
    if (filtered) places_ = scratch->take<int32_t>(kHashBlock);
    if (filtered || b.ids || b.dim != 1 || b.key_row_stride != 1) {
      copies_ = scratch->take<uint64_t>(kHashBlock * b.dim);
    }
  }

  // Behaviours [begin, end) of the group.
  void read(const Group& g, int64_t begin, int64_t end) {
    begin_ = begin;
    count = end - begin;
    if (places_ != nullptr) find_places(g, end);
    const uint64_t* keys = static_cast<const uint64_t*>(b_.keys);
    if (b_.ids) {
      with_ints(b_.ids, g.position, [&](auto* ids) {
        copy([&](int64_t m) { return keys + ids[m] * b_.key_row_stride; });
      });
    } else if (copies_ != nullptr) {
      copy([&](int64_t m) { return keys + g.key_offset + m * b_.key_row_stride; });
    } else {
      words_ = keys + g.key_offset + begin;
    }
  }

  // Word w of each, [count].
  const uint64_t* words(int64_t w) const { return words_ + w * kHashBlock; }
  // Which behaviour of the group hash i is.
  int64_t place(int64_t i) const { return places_ != nullptr ? places_[i] : begin_ + i; }

  int64_t count;

 private:
  void find_places(const Group& g, int64_t end) {
    count = 0;
    for (int64_t m = begin_; m < end; ++m) {
      places_[count] = static_cast<int32_t>(m);
      count += is_valid(b_, g.position + m, g.query_time);
    }
  }

  template <class RowOf>
  void copy(const RowOf& row_of) {
    words_ = copies_;
    for (int64_t i = 0; i < count; ++i) {
      __builtin_prefetch(row_of(place(min_of(i + kPrefetchHashes, count - 1))));
      const uint64_t* row = row_of(place(i));
      for (int64_t w = 0; w < b_.dim; ++w) copies_[w * kHashBlock + i] = row[w];
    }
  }

  const Behaviours& b_;
  const uint64_t* words_ = nullptr;
  uint64_t* copies_ = nullptr;
  int32_t* places_ = nullptr;  // none: all are valid
  int64_t begin_;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
