// SPDX-License-Identifier: Apache-2.0
// The behaviours that esu_attention works on at a time: their rows, time terms and alphas.
#pragma once

#include "longclock/esu_attention/esu_attention.h"
#include "longclock/search/behaviour_block-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// Behaviours done together: their rows stay in the first-level cache between the dot products and
// the weighted sums.
constexpr int64_t kEsuBlock = 64;
static_assert(kEsuBlock <= kBehaviourBlock && kEsuBlock % kLanes == 0);

// The attention's view of a block: the valid behaviours only, moved together, and the products of
// their z with some vectors of the query: u of each head, which makes the alphas, and others.
template <class T>
class EsuBlock {
 public:
  EsuBlock(const EsuAttentionParams& p, int64_t others, Scratch* scratch)
      : p_(p), others_(others), padded_(round_up(p.dim, kLanes)) {
    block_ = scratch->take<BehaviourBlock<T>>(1);
    copies_ = scratch->take<float>(kEsuBlock * padded_ + kLanes);
    vectors_ = scratch->take<const float*>(p.heads + others);
    products_ = scratch->take<float>((p.heads + others) * kEsuBlock);
    features_ = scratch->take<TimeFeatureBlock>(p.behaviours.time.clocks);
    const int features = p.behaviours.feature_count;
    if (features > 0) feature_rows_ = scratch->take<const T*>(features * kEsuBlock);
    // Rows read where they lie: the next block's come in while this one is worked on.
    in_place_ = !p.behaviours.ids && p.positions == nullptr;
    const bool ahead = in_place_ && sizeof(T) == 4 && p.dim == padded_ && features == 0;
    ahead_ = ahead ? kEsuBlock * p.behaviours.key_row_stride : 0;
  }

  // Goes to query q; `others`: rows as u's, side by side.
  void start(int64_t q, const float* others) {
    q_ = q;
    for (int64_t h = 0; h < p_.heads; ++h) vectors_[h] = p_.u + (q * p_.heads + h) * p_.u_stride;
    for (int64_t i = 0; i < others_; ++i) vectors_[p_.heads + i] = others + i * padded_;
  }

  // The query's behaviours [begin, begin + n); returns how many are valid. Up to the next whole
  // vector, alphas are -inf and features finite.
  int64_t read(int64_t begin, int64_t n) {
    count_ = p_.positions == nullptr ? read_row(begin, n) : read_positions(begin, n);
    if (count_ == 0) return 0;
    BehaviourBlock<T>& b = *block_;
    if (!in_place_) {
      for (int64_t i = 0; i < count_; ++i) prefetch_row(b.rows[i], p_.behaviours.dim * sizeof(T));
    }
    const bool joined = p_.behaviours.feature_count > 0;
    if (joined) find_features(begin + n);
    const int64_t whole = round_up(count_, kLanes);
    read_time_term(whole);
    if (joined) {
      join_rows();
    } else {
      widen_rows(b.rows, count_, p_.dim, copies_, rows_);
    }
    dot_tiles(vectors_, p_.heads + others_, rows_, count_, padded_, ahead_, products_, kEsuBlock);
    for (int64_t h = 0; h < p_.heads; ++h) {
      float* alpha = products_ + h * kEsuBlock;
      for (int64_t i = 0; i < count_; ++i) alpha[i] += b.s[i];
      for (int64_t i = count_; i < whole; ++i) alpha[i] = -__builtin_inff();
    }
    return count_;
  }

  const float* const* rows() const { return rows_; }
  const float* const* vectors() const { return vectors_; }
  const float* alpha(int64_t head) const { return products_ + head * kEsuBlock; }
  const float* product(int64_t other) const { return alpha(p_.heads + other); }
  const int64_t* index() const { return index_; }
  const int32_t* delta(int clock) const { return block_->delta[clock]; }
  const TimeFeatureBlock& features(int clock) const { return features_[clock]; }
  int64_t padded() const { return padded_; }

 private:
  // The features of every clock and s, for whole vectors: past the last behaviour those of a delta
  // of 0, which are finite.
  void read_time_term(int64_t whole) {
    BehaviourBlock<T>& b = *block_;
    const TimeTerm& time = p_.behaviours.time;
    alignas(64) float more[kEsuBlock];
    for (int c = 0; c < time.clocks; ++c) {
      const TimeMlp& mlp = time.clock[c].mlp;
      for (int64_t i = count_; i < whole; ++i) b.delta[c][i] = 0;
      time_features(b.delta[c], whole, mlp.unit, mlp.elapsed, features_ + c);
      if (time.lookups > 0) continue;
      time_similarity(mlp, features_[c], whole, c == 0 ? b.s : more);
      for (int64_t i = 0; c > 0 && i < whole; ++i) b.s[i] += more[i];
    }
    for (int i = 0; i < time.lookups; ++i) {
      look_up(time.lookup[i], b.delta[time.lookup[i].clock], whole, i > 0, b.s);
    }
  }

  // Where the rows of the block's features begin. Those of the next block come in meanwhile: each
  // lies anywhere in its table. Not inlined, nor is join_rows(): rows without features keep the
  // shorter code.
  __attribute__((noinline)) void find_features(int64_t end) {
    const int64_t* positions = p_.positions == nullptr ? nullptr : p_.positions + q_ * p_.k;
    const int64_t ahead = min_of(end + kEsuBlock, p_.k);
    for (int f = 0; f < p_.behaviours.feature_count; ++f) {
      const Feature& feature = p_.behaviours.features[f];
      const T* keys = static_cast<const T*>(feature.keys);
      const T** rows = feature_rows_ + f * kEsuBlock;
      const int64_t bytes = feature.dim * static_cast<int64_t>(sizeof(T));
      for (int64_t i = 0; i < count_; ++i) {
        const int64_t at = positions == nullptr ? q_ * p_.k + index_[i] : positions[index_[i]];
        rows[i] = keys + (feature.ids ? feature.ids[at] : at) * feature.row_stride;
        if (end <= kEsuBlock) prefetch_row(rows[i], bytes);
      }
      for (int64_t k = end; feature.ids && k < ahead; ++k) {
        const int64_t at = positions == nullptr ? q_ * p_.k + k : positions[k];
        const int64_t row = at < 0 ? -1 : feature.ids[at];
        if (row < 0 || row >= feature.table_rows) continue;  // what is not valid may have any
        prefetch_far_row(keys + row * feature.row_stride, bytes);
      }
    }
  }

  // Copies of the rows with their features behind them, padded with zeros. What is written past the
  // end of a row or of a feature, less than a vector, is overwritten by what lies there.
  __attribute__((noinline)) void join_rows() {
    const auto copy = [](const T* from, int64_t dim, float* to) {
      int64_t i = 0;
      for (; i + kLanes <= dim; i += kLanes) store(load(from + i), to + i);
      if (i < dim) store(load_partial(from + i, dim - i), to + i);
      return to + dim;
    };
    for (int64_t r = 0; r < count_; ++r) {
      float* to = copies_ + r * padded_;
      rows_[r] = to;
      if (padded_ > p_.dim) store(Vf{}, to + padded_ - kLanes);
      to = copy(block_->rows[r], p_.behaviours.dim, to);
      for (int f = 0; f < p_.behaviours.feature_count; ++f) {
        to = copy(feature_rows_[f * kEsuBlock + r], p_.behaviours.features[f].dim, to);
      }
    }
  }

  // Behaviours that lie in the query's own row of z and its times.
  int64_t read_row(int64_t begin, int64_t n) {
    const Group group{q_, q_ + 1, p_.query_time[q_], q_ * p_.k, q_ * p_.z_query_stride, p_.k, 0, 0};
    BehaviourBlock<T>& b = *block_;
    read_times(p_.behaviours, group, begin, n, &b);
    find_rows(p_.behaviours, group, begin, n, &b);
    for (int64_t i = 0; i < n; ++i) index_[i] = begin + i;
    if (b.all_valid) return n;
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (b.valid[i] == 0) continue;
      index_[count] = begin + i;
      for (int c = 0; c < p_.behaviours.time.clocks; ++c) b.delta[c][count] = b.delta[c][i];
      b.rows[count] = b.rows[i];
      ++count;
    }
    return count;
  }

  // Behaviours that lie anywhere in the histories.
  int64_t read_positions(int64_t begin, int64_t n) {
    const Behaviours& from = p_.behaviours;
    const int64_t* positions = p_.positions + q_ * p_.k + begin;
    const int64_t now = p_.query_time[q_];
    int64_t at[kEsuBlock], times[kEsuBlock], count = 0;
    for (int64_t i = 0; i < n; ++i) {
      at[count] = positions[i];
      index_[count] = begin + i;
      count += positions[i] >= 0 ? 1 : 0;
    }
    with_ints(from.key_time, 0, [&](auto* t) {
      for (int64_t i = 0; i < count; ++i) times[i] = t[at[i]];
    });
    if (from.ids) {  // from a position to the row that is looked up there
      with_ints(from.ids, 0, [&](auto* ids) {
        for (int64_t i = 0; i < count; ++i) at[i] = ids[at[i]];
      });
    }
    const T* keys = static_cast<const T*>(from.keys);
    for (int64_t i = 0; i < count; ++i) block_->rows[i] = keys + at[i] * from.key_row_stride;
    for (int c = 0; c < from.time.clocks; ++c) {
      clock_deltas(times, 1, &now, 0, count, from.time.clock[c].period, block_->delta[c]);
    }
    return count;
  }

  const EsuAttentionParams& p_;
  int64_t others_, padded_, ahead_;
  bool in_place_;
  BehaviourBlock<T>* block_;
  const T** feature_rows_ = nullptr;  // [features, kEsuBlock]
  float* copies_;
  const float** vectors_;
  float* products_;
  TimeFeatureBlock* features_;  // of each clock
  int64_t q_ = 0, count_ = 0;
  int64_t index_[kEsuBlock];
  const float* rows_[kEsuBlock];
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
