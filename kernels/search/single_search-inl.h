// SPDX-License-Identifier: Apache-2.0
// One candidate against one history. Memory-bound: every row is read once, and what is done besides
// keeps memory waiting, so s is looked up only where it can matter. A score is at most its product
// plus the limit of its delta's bucket; after the first few hundred behaviours that is below the
// threshold for most. Rounding keeps the order of sums, so the result is exact for every input.
#pragma once

#include "longclock/search/behaviour_block-inl.h"
#include "longclock/search/dot_search.h"
#include "longclock/selection/topk_buffer-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

static_assert(kTimeBuckets == LookupTable::kSize);

template <class T>
class SingleSearch {
 public:
  SingleSearch(const DotSearchParams& p, const SearchTask& task, Scratch* scratch)
      : b_(p.behaviours),
        group_(p.groups[task.group]),
        task_(task),
        scale_(p.scale),
        products_(b_, p.queries + task.query_begin * p.query_stride, scratch),
        best_(scratch->take<TopKEntry>(topk_capacity(p.k)), p.k) {}

  // The best k.
  TopKBuffer& find() {
    products_.for_each_block(
        group_, task_.begin, task_.end, [](StreamBlock<T>&) {},
        [&](StreamBlock<T>& block, float* products, int64_t begin) {
          for (int64_t at = 0; block.any_valid && at < block.n; at += kTopKBlock) {
            add(block, at, min_of(at + kTopKBlock, block.n), products, begin);
          }
        });
    return best_;
  }

 private:
  // Where more than one in so many may pass, all scores at once cost less.
  static constexpr int64_t kFewOf = 4;

  // Behaviours [at, end) of a block that begins at `begin`.
  void add(StreamBlock<T>& block, int64_t at, int64_t end, float* products, int64_t begin) {
    const int64_t count = list_possible(block, at, end, products);
    if (count * kFewOf > end - at) {
      read_s(b_, at, end, &block);
      add_s(scale_, block.s + at, end - at, products + at);
      best_.push(products + at, block.all_valid ? nullptr : block.valid + at, end - at, begin + at);
      return;
    }
    const float* s = b_.time_table->s;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t which = possible_[i];
      if (!block.all_valid && block.valid[which] == 0) continue;
      best_.add(fma(scale_, products[which], s[block.delta[which]]), begin + which);
    }
    best_.make_room();
  }

  // Lists those of [at, end) that may pass the threshold; returns how many they are.
  int64_t list_possible(const StreamBlock<T>& block, int64_t at, int64_t end,
                        const float* products) {
    if (b_.time_table == nullptr || best_.passes_all()) return end - at;
    const Vf scale = splat(scale_), threshold = splat(best_.threshold());
    const int shift = b_.time_table->bucket_shift;
    const LookupTable limits(b_.time_table->limits);
    int64_t count = 0;
    for (; at < end; at += kLanes) {
      const Vf limit = limits[load_raw<Vi>(block.delta + at) >> shift];
      const uint32_t passed = not_at_most(fma(scale, load(products + at), limit), threshold);
      count +=
          list_lanes(passed & first_lanes(end - at), static_cast<int32_t>(at), possible_ + count);
    }
    return count;
  }

  const Behaviours& b_;
  const Group& group_;
  const SearchTask& task_;
  float scale_;
  SpanProducts<T> products_;
  TopKBuffer best_;
  int32_t possible_[kTopKBlock + kLanes];
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
