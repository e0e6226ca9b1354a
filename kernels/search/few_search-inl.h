// SPDX-License-Identifier: Apache-2.0
// One candidate, or a few, against one history. Memory-bound: every row is read once, and what is
// done besides keeps memory waiting, so s is looked up only where it can matter, and once for all
// candidates. A score is at most its product plus the sum of the limits of its look-ups; that is
// below the threshold for most, from the first on where it comes from the scores of the first
// behaviours. Rounding keeps the order of sums, so the result is exact for every input.
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

  // Of kLanes behaviours of a block, those `inside`: what lies behind them has no delta.
  template <class Block>
  Vf of(const Block& block, int64_t at, Vi inside) const {
    Vf sum = one(0, block, at, inside);
#pragma GCC unroll 4
    for (int i = 1; i < kLookups; ++i) sum = sum + one(i, block, at, inside);
    return sum;
  }

 private:
  template <std::size_t... i>
  SumOfLimits(const TimeLookup* lookups, std::index_sequence<i...>)
      : lookups_(lookups), few_{LookupTable(lookups[i].table->limits)...} {}

  template <class Block>
  Vf one(int i, const Block& block, int64_t at, Vi inside) const {
    const TimeTable& table = *lookups_[i].table;
    const Vi delta = load_raw<Vi>(block.delta[lookups_[i].clock] + at) & inside;
    const Vi bucket = (table.elapsed ? elapsed_place(delta) : delta) >> table.bucket_shift;
    return table.many ? gather(table.limits, bucket) : few_[i][bucket];
  }

  const TimeLookup* lookups_;
  LookupTable few_[kLookups];
};

template <class T>
class FewSearch {
 public:
  FewSearch(const DotSearchParams& p, const SearchTask& task, Scratch* scratch)
      : b_(p.behaviours),
        group_(p.groups[task.group]),
        task_(task),
        k_(p.k),
        count_(task.query_end - task.query_begin),
        products_(b_, p.queries + task.query_begin * p.query_stride, p.query_stride, count_,
                  scratch) {
    for (int64_t q = 0; q < count_; ++q) {
      const float* query = p.queries + (task.query_begin + q) * p.query_stride;
      scale_[q] = query_scale<T>(b_, query, p.scale);
      best_[q] = TopKBuffer(scratch->take<TopKEntry>(topk_capacity(p.k)), p.k);
    }
    maxima_ = scratch->take<float>(fold_lanes(p.k));
    codes_ = scratch->take<uint8_t>(fold_lanes(p.k));
  }

  // The best k of every candidate.
  TopKBuffer* find() {
    products_.for_each_block(
        group_, task_.begin, task_.end, [](StreamBlock<T>&) {},
        [&](StreamBlock<T>& block, float* products, int64_t begin) {
          if (begin == task_.begin) set_thresholds();
          for (int64_t at = 0; block.any_valid && at < block.n; at += kTopKBlock) {
            add(block, at, min_of(at + kTopKBlock, block.n), products, begin);
          }
          for (int64_t q = 0; q < count_; ++q) best_[q].tighten();
        });
    return best_;
  }

 private:
  // Where more than one in so many may pass, all scores at once cost less.
  static constexpr int64_t kFewOf = 4;
  static constexpr int64_t kVectors = kTopKBlock / kLanes;
  // Behaviours, at most, that the first thresholds come from: so many of every lane that is folded.
  static constexpr int64_t kMaxFolded = 2048, kFold = 4;

  // Thresholds that k of the first part's scores reach.
  void set_thresholds() {
    const int64_t lanes = fold_lanes(k_), folded = kFold * lanes;
    int64_t n = 0;
    for (int64_t i = 0; i < kStreams; ++i) n += products_.block(i).n;
    if (b_.time.lookups == 0 || folded > min_of(n, kMaxFolded)) return;
    int64_t ends[kStreams];  // of each block's that are folded
    for (int64_t i = 0, left = folded; i < kStreams; left -= ends[i++]) {
      StreamBlock<T>& block = products_.block(i);
      ends[i] = min_of(block.n, left);
      if (block.any_valid && ends[i] > 0) read_s(b_, 0, ends[i], &block);
    }
    for (int64_t q = 0; q < count_; ++q) {
      for (int64_t i = 0; i < lanes; ++i) maxima_[i] = -__builtin_inff();
      int64_t lane = 0;
      for (int64_t i = 0; i < kStreams; ++i) {
        lane = fold(products_.block(i), ends[i], products_.of(q, i), scale_[q], lanes, lane);
      }
      const float least = reached_by(maxima_, lanes, k_, codes_);
      if (least > -__builtin_inff()) {
        best_[q] = TopKBuffer::reaching(best_[q].entries(), k_, least);
      }
    }
  }

  // Folds the scores of a block's valid ones of n behaviours to maxima, from that of `lane` on, and
  // returns the one after the last.
  int64_t fold(const StreamBlock<T>& block, int64_t n, const float* products, float query_scale,
               int64_t lanes, int64_t lane) {
    const Vf scale = splat(query_scale);
    for (int64_t i = 0; block.any_valid && i + kLanes <= n; i += kLanes) {
      Vf score = fma(scale, load(products + i), load(block.s + i));
      if (!block.all_valid) {
        const Vi valid = __builtin_convertvector(load_raw<LaneBytes>(block.valid + i), Vi);
        score = valid != 0 ? score : splat(-__builtin_inff());
      }
      const Vf largest = load(maxima_ + lane);
      store(score > largest ? score : largest, maxima_ + lane);
      lane = lane + kLanes < lanes ? lane + kLanes : 0;
    }
    return lane;
  }

  // Behaviours [at, end) of a block that begins at `begin`.
  void add(StreamBlock<T>& block, int64_t at, int64_t end, float* products, int64_t begin) {
    const int64_t n = end - at, asked = list_possible(block, at, end, products);
    const bool every = asked * kFewOf > n;
    if (every) {
      read_s(b_, at, end, &block);
    } else {
      look_up_asked(asked, &block);
    }
    for (int64_t q = 0; q < count_; ++q, products += products_.product_stride()) {
      if (counts_[q] * kFewOf > n) {
        add_s(scale_[q], block.s + at, n, products + at);
        best_[q].push(products + at, block.all_valid ? nullptr : block.valid + at, n, begin + at);
        continue;
      }
      add_listed(block, products, scale_[q], possible_[q], counts_[q], begin, &best_[q]);
      best_[q].make_room();
    }
  }

  // Those of a list, whose s is known.
  void add_listed(const StreamBlock<T>& block, const float* products, float scale,
                  const int32_t* list, int64_t count, int64_t begin, TopKBuffer* best) const {
    for (int64_t i = 0; i < count; i += kLanes) {
      uint32_t bits = first_lanes(count - i);
      const Vi which = load_raw<Vi>(list + i) & (lane_numbers() < static_cast<int32_t>(count - i));
      const Vf score = fma(splat(scale), gather(products, which), gather(block.s, which));
      for (uint32_t rest = block.all_valid ? 0 : bits; rest != 0; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        if (block.valid[which[lane]] == 0) bits &= ~(1u << lane);
      }
      best->add(score, bits, which + static_cast<int32_t>(begin));
    }
  }

  // s of those that may pass. Apart from what is done with it, which the processor cannot foresee:
  // a table of a week lies beyond the second-level cache, and so many look-ups are in flight.
  void look_up_asked(int64_t asked, StreamBlock<T>* block) const {
    for (int l = 0; l < b_.time.lookups; ++l) {
      const TimeLookup& lookup = b_.time.lookup[l];
      const int32_t* delta = block->delta[lookup.clock];
      for (int64_t i = 0; i < asked; ++i) {
        const int32_t which = asked_[i];
        const float s = lookup.table->of(delta[which]);
        block->s[which] = l == 0 ? s : block->s[which] + s;
      }
    }
  }

  // Lists those of [at, end) that may pass a candidate's threshold, and those that may pass any's;
  // returns how many the latter are.
  int64_t list_possible(const StreamBlock<T>& block, int64_t at, int64_t end,
                        const float* products) {
    switch (b_.time.lookups) {
      case 0:
        break;
      case 1:
        read_limits<1>(block, at, end);
        return list_by_limits(at, end, products);
      case 2:
        read_limits<2>(block, at, end);
        return list_by_limits(at, end, products);
      case 3:
        read_limits<3>(block, at, end);
        return list_by_limits(at, end, products);
      default:
        read_limits<4>(block, at, end);
        return list_by_limits(at, end, products);
    }
    for (int64_t q = 0; q < count_; ++q) counts_[q] = end - at;
    return end - at;
  }

  template <int kLookups>
  void read_limits(const StreamBlock<T>& block, int64_t at, int64_t end) {
    const SumOfLimits<kLookups> limits(b_.time.lookup);
    for (int64_t i = 0; at + i < end; i += kLanes) {
      const Vi inside = lane_numbers() < static_cast<int32_t>(end - at - i);
      store(limits.of(block, at + i, inside), limits_ + i);
    }
  }

  int64_t list_by_limits(int64_t at, int64_t end, const float* products) {
    uint32_t any[kVectors] = {};
    bool all = false;
    for (int64_t q = 0; q < count_; ++q, products += products_.product_stride()) {
      counts_[q] = end - at;
      all = all || best_[q].passes_all();
      if (best_[q].passes_all()) continue;
      const Vf scale = splat(scale_[q]);
      const Vf threshold = splat(best_[q].threshold());
      int64_t count = 0;
      for (int64_t i = 0; at + i < end; i += kLanes) {
        const Vf score = fma(scale, load(products + at + i), load(limits_ + i));
        const uint32_t passed = not_at_most(score, threshold) & first_lanes(end - at - i);
        any[i / kLanes] |= passed;
        count += list_lanes(passed, static_cast<int32_t>(at + i), possible_[q] + count);
      }
      counts_[q] = count;
    }
    if (all) return end - at;
    int64_t asked = 0;
    for (int64_t i = 0; at + i < end; i += kLanes) {
      asked += list_lanes(any[i / kLanes], static_cast<int32_t>(at + i), asked_ + asked);
    }
    return asked;
  }

  const Behaviours& b_;
  const Group& group_;
  const SearchTask& task_;
  int64_t k_;
  float scale_[kFewQueries];
  int64_t count_;
  SpanProducts<T> products_;
  TopKBuffer best_[kFewQueries];
  float* maxima_;
  uint8_t* codes_;
  int64_t counts_[kFewQueries];  // of those that may pass
  int32_t possible_[kFewQueries][kTopKBlock + kLanes];
  int32_t asked_[kTopKBlock + kLanes];
  alignas(64) float limits_[kTopKBlock];
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
