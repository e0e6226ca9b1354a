// SPDX-License-Identifier: Apache-2.0
// One candidate against one history. Memory-bound: every row is read once, and what is done besides
// keeps memory waiting, so s is looked up only where it can matter. A score is at most its product
// plus the sum of the limits of its look-ups; after the first few hundred behaviours that is below
// the threshold for most. Rounding keeps the order of sums, so the result is exact for every input.
#pragma once

#include <utility>

#include "longclock/search/dot_search.h"
#include "longclock/search/span_products-inl.h"
#include "longclock/selection/topk_buffer-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

static_assert(kTimeBuckets == LookupTable::kSize);
static_assert(kMaxClocks == 4);

// elapsed_place() of every lane.
inline Vi elapsed_place(Vi seconds) {
  const Vi place = ((Vi) __builtin_convertvector(seconds, Vf) >> kElapsedShift) - kElapsedBefore;
  return place & (place >= 0);
}

// The limits of s of some look-ups, added in their order.
template <int kLookups>
class SumOfLimits {
 public:
  explicit SumOfLimits(const TimeLookup* lookups)
      : SumOfLimits(lookups, std::make_index_sequence<kLookups>()) {}

  // Of kLanes behaviours of a block.
  template <class Block>
  Vf of(const Block& block, int64_t at) const {
    Vf sum = one(0, block, at);
#pragma GCC unroll 4
    for (int i = 1; i < kLookups; ++i) sum = sum + one(i, block, at);
    return sum;
  }

 private:
  template <std::size_t... i>
  SumOfLimits(const TimeLookup* lookups, std::index_sequence<i...>)
      : lookups_(lookups), few_{LookupTable(lookups[i].table->limits)...} {}

  template <class Block>
  Vf one(int i, const Block& block, int64_t at) const {
    const TimeTable& table = *lookups_[i].table;
    const Vi delta = load_raw<Vi>(block.delta[lookups_[i].clock] + at);
    const Vi bucket = (table.elapsed ? elapsed_place(delta) : delta) >> table.bucket_shift;
    return table.many ? gather(table.limits, bucket) : few_[i][bucket];
  }

  const TimeLookup* lookups_;
  LookupTable few_[kLookups];
};

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
    look_up_possible(block, count);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t which = possible_[i];
      if (!block.all_valid && block.valid[which] == 0) continue;
      best_.add(fma(scale_, products[which], s_[i]), begin + which);
    }
    best_.make_room();
  }

  // s of those that may pass. Apart from what is done with it, which the processor cannot foresee:
  // a table of a week lies beyond the second-level cache, and so many look-ups are in flight.
  void look_up_possible(const StreamBlock<T>& block, int64_t count) {
    for (int l = 0; l < b_.time.lookups; ++l) {
      const TimeLookup& lookup = b_.time.lookup[l];
      const int32_t* delta = block.delta[lookup.clock];
      for (int64_t i = 0; i < count; ++i) {
        const float s = lookup.table->of(delta[possible_[i]]);
        s_[i] = l == 0 ? s : s_[i] + s;
      }
    }
  }

  // Lists those of [at, end) that may pass the threshold; returns how many they are.
  int64_t list_possible(const StreamBlock<T>& block, int64_t at, int64_t end,
                        const float* products) {
    if (best_.passes_all()) return end - at;
    switch (b_.time.lookups) {
      case 0:
        return end - at;
      case 1:
        return list_by_limits<1>(block, at, end, products);
      case 2:
        return list_by_limits<2>(block, at, end, products);
      case 3:
        return list_by_limits<3>(block, at, end, products);
      default:
        return list_by_limits<4>(block, at, end, products);
    }
  }

  template <int kLookups>
  int64_t list_by_limits(const StreamBlock<T>& block, int64_t at, int64_t end,
                         const float* products) {
    const Vf scale = splat(scale_), threshold = splat(best_.threshold());
    const SumOfLimits<kLookups> limits(b_.time.lookup);
    int64_t count = 0;
    for (; at < end; at += kLanes) {
      const Vf limit = limits.of(block, at);
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
  float s_[kTopKBlock];
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
