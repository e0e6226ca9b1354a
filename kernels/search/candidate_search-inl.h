// SPDX-License-Identifier: Apache-2.0
// Many candidates of one request against one history. Arithmetic-bound: a matrix product whose
// scores are compared with their candidates' thresholds while they are in registers, so that the
// few that pass are all that is written.
//
// The thresholds come from every step-th behaviour, scored first and kept: a threshold is such that
// somewhat more than k of all behaviours should pass. A threshold only decides how much work is
// left: where fewer than k pass, the candidate is searched again without one, and where too many
// do, its buffer is cut to its best k, which lifts the threshold. So the result is exact for every
// input.
#pragma once

#include "longclock/search/candidate_panel-inl.h"
#include "longclock/search/dot_search.h"
#include "longclock/search/key_list-inl.h"
#include "longclock/search/passed-inl.h"
#include "longclock/search/sampled_thresholds-inl.h"
#include "longclock/search/small_tables-inl.h"
#include "longclock/selection/topk_buffer-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

static_assert(kCandidatePanel % kPanelLanes == 0);

template <class T>
class CandidateSearch {
  using Words = typename WordsOf<T>::Type;

 public:
  // For up to `most` candidates of the task at a time.
  CandidateSearch(const DotSearchParams& p, const SearchTask& task, int64_t most, Scratch* scratch)
      : p_(p),
        b_(p.behaviours),
        group_(p.groups[task.group]),
        task_(task),
        words_(b_, group_.length),
        packer_(words_, scratch),
        list_(b_, words_, group_.position, scratch),
        small_(b_, words_, panels_of(most), scratch) {
    const int64_t panels = panels_of(most);
    block_ = scratch->take<BehaviourBlock<T>>(1);
    panels_ = scratch->take<float>(panels * packer_.panel_size());
    thresholds_ = scratch->take<float>(panels * kPanelLanes);
    scales_ = scratch->take<float>(panels * kPanelLanes);
    sample_index_ = scratch->take<int64_t>(kMaxSamples);
    samples_ = scratch->take<float>(panels * kMaxSamples * kPanelLanes);
    codes_ = scratch->take<uint8_t>(sampled_codes(kMaxSamples));
    scores_ = scratch->take<float>(kListKeys * kPanelLanes);
    passed_ = scratch->take<uint32_t>(kTopKBlock * kPanelLanes + kListSlack);
  }

  // The best of `count` candidates into as many empty buffers; fewer than k of them where `sample`
  // is set and its threshold was too high. Returns the number of valid behaviours.
  int64_t find(const float* const* queries, int64_t count, bool sample, TopKBuffer* best) {
    count_ = count;
    best_ = best;
    pack(queries);
    sample_count_ = next_sample_ = 0;
    if (sample) score_sample();
    for (int64_t i = 0; i < count; ++i) thresholds_[i] = best_[i].threshold();
    return walk();
  }

 private:
  static int64_t panels_of(int64_t count) { return (count + kPanelLanes - 1) / kPanelLanes; }
  int64_t panel_count() const { return panels_of(count_); }

  void pack(const float* const* queries) {
    for (int64_t panel = 0; panel < panel_count(); ++panel) {
      const int64_t first = panel * kPanelLanes;
      float* const words = panels_ + panel * packer_.panel_size();
      packer_.pack(queries + first, min_of(kPanelLanes, count_ - first), words);
      for (int64_t i = 0; i < kPanelLanes; ++i) {
        const float* query = queries[min_of(first + i, count_ - 1)];
        scales_[first + i] = query_scale<T>(b_, query, p_.scale);
      }
      small_.multiply(panel, words);
    }
  }

  // Scores of the list's keys for a panel's candidates, [.., kPanelLanes]; where `passed` is given,
  // compared with the thresholds as well.
  void score_list(int64_t panel, float* out, RowBits* passed) const {
    const int64_t n = list_.size();
    int64_t i = 0;
    for (; i + kTileRows <= n; i += kTileRows) {
      score_tile<kTileRows>(panel, i, kTileRows, out, passed);
    }
    for (; i < n; i += kRestRows) {
      score_tile<kRestRows>(panel, i, min_of(kRestRows, n - i), out, passed);
    }
  }

  template <int kRows>
  void score_tile(int64_t panel, int64_t first, int64_t n, float* out, RowBits* passed) const {
    Vf sums[kRows][2];
#pragma GCC unroll 12
    for (int a = 0; a < kRows; ++a) {
      sums[a][0] = sums[a][1] = list_.begin(first + min_of(a, n - 1));
    }
    for (int i = 0; i < small_.count(); ++i) {
      const int32_t* row = list_.small(i) + first;
#pragma GCC unroll 12
      for (int a = 0; a < kRows; ++a) {
        const float* more = small_.products(i, panel, row[min_of(a, n - 1)]);
        sums[a][0] += load(more);
        sums[a][1] += load(more + kLanes);
      }
    }
    const float* words =
        panels_ + panel * packer_.panel_size() + words_.joined_begin() * kPanelLanes;
    list_.template add<kRows>(first, n, words, sums);
    const Vf low = scale(panel, 0), high = scale(panel, 1);
    out += first * kPanelLanes;
#pragma GCC unroll 12
    for (int a = 0; a < kRows; ++a) {
      if (a >= n) break;
      const Vf s = splat(list_.s()[first + a]);
      sums[a][0] = fma(low, list_.product(sums[a][0], first + a), s);
      sums[a][1] = fma(high, list_.product(sums[a][1], first + a), s);
      store(sums[a][0], out + a * kPanelLanes);
      store(sums[a][1], out + a * kPanelLanes + kLanes);
    }
    if (passed == nullptr) return;
    const PanelThresholds thresholds(thresholds_ + panel * kPanelLanes);
#pragma GCC unroll 12
    for (int a = 0; a < kRows; ++a) {
      if (a >= n) break;
      thresholds.store_passed(sums[a][0], sums[a][1], passed + first + a);
    }
  }

  // What products with a half of a panel are multiplied by.
  Vf scale(int64_t panel, int64_t half) const {
    if constexpr (kAreScaled<T>) return load(scales_ + panel * kPanelLanes + half * kLanes);
    return splat(p_.scale);
  }

  void score_sample() {
    const Sampling sampling(task_.end - task_.begin, p_.k);
    if (!sampling.pays(sampling.count)) return;
    BehaviourBlock<T>& block = *block_;
    list_.clear();
    for (int64_t at = 0; at < sampling.count; at += kListKeys) {
      const int64_t n = min_of(kListKeys, sampling.count - at);
      const int64_t begin = task_.begin + at * sampling.step;
      read_block(b_, group_, begin, n, &block, sampling.step);
      for (int64_t i = 0; i < n; ++i) {
        if (!block.all_valid && block.valid[i] == 0) continue;
        sample_index_[sample_count_ + list_.size()] = begin + i * sampling.step;
        list_.append(block, i, begin + i * sampling.step);
      }
      list_.widen();
      for (int64_t panel = 0; panel < panel_count(); ++panel) {
        score_list(panel, sample_scores(panel, sample_count_), nullptr);
      }
      sample_count_ += list_.size();
      list_.clear();
    }
    if (!sampling.pays(sample_count_)) return;
    for (int64_t panel = 0; panel < panel_count(); ++panel) {
      const int64_t first = panel * kPanelLanes;
      set_sampled_thresholds(sample_scores(panel, 0), sample_count_, sampling, p_.k, codes_,
                             min_of(kPanelLanes, count_ - first), best_ + first);
    }
  }

  // All behaviours in order, the sampled ones with the scores that they have.
  int64_t walk() {
    BehaviourBlock<T>& block = *block_;
    int64_t valid = 0;
    int64_t sample = 0;  // the next sampled behaviour of the valid ones
    int64_t covered = 0;
    list_.clear();
    for (int64_t at = task_.begin; at < task_.end; at += kBehaviourBlock) {
      const int64_t n = min_of(kBehaviourBlock, task_.end - at);
      read_block(b_, group_, at, n, &block);
      for (int64_t i = 0; i < n; ++i) {
        if (!block.all_valid && block.valid[i] == 0) continue;
        ++valid;
        ++covered;
        if (sample < sample_count_ && at + i == sample_index_[sample]) {
          ++sample;
        } else {
          list_.append(block, i, at + i);
        }
        if (list_.size() == kListKeys || covered == kTopKBlock) {
          filter(sample);
          covered = 0;
        }
      }
    }
    if (covered > 0) filter(sample);
    return valid;
  }

  // The list, and the sampled behaviours before `sample_end`, against the thresholds.
  void filter(int64_t sample_end) {
    list_.widen();
    alignas(64) RowBits passed[kTopKBlock];
    const int64_t sampled = sample_end - next_sample_;
    for (int64_t panel = 0; panel < panel_count(); ++panel) {
      score_list(panel, scores_, passed);
      add(panel, scores_, passed, list_.size(), list_.index());
      const PanelThresholds thresholds(thresholds_ + panel * kPanelLanes);
      const float* scores = sample_scores(panel, next_sample_);
      for (int64_t i = 0; i < sampled; ++i) {
        const float* row = scores + i * kPanelLanes;
        passed[i] = thresholds.passed(load(row), load(row + kLanes));
      }
      add(panel, scores, passed, sampled, sample_index_ + next_sample_);
    }
    next_sample_ = sample_end;
    list_.clear();
    for (int64_t i = 0; i < count_; ++i) {
      best_[i].make_room();
      thresholds_[i] = best_[i].threshold();
    }
  }

  // What passed of scores [n, kPanelLanes], to the buffers.
  void add(int64_t panel, const float* scores, RowBits* passed, int64_t n, const int64_t* index) {
    const uint64_t lanes = lanes_of_rows(count_ - panel * kPanelLanes);
    const int64_t count = list_passed(passed, n, lanes, passed_);
    TopKBuffer* best = best_ + panel * kPanelLanes;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t at = passed_[i];
      best[at % kPanelLanes].add(scores[at], index[at / kPanelLanes]);
    }
  }

  float* sample_scores(int64_t panel, int64_t sample) const {
    return samples_ + (panel * kMaxSamples + sample) * kPanelLanes;
  }

  const DotSearchParams& p_;
  const Behaviours& b_;
  const Group& group_;
  const SearchTask& task_;
  int64_t count_ = 0, sample_count_ = 0, next_sample_ = 0;
  RowWords<Words> words_;
  PanelPacker<Words> packer_;
  KeyList<T> list_;
  SmallTables<T> small_;
  BehaviourBlock<T>* block_;
  TopKBuffer* best_ = nullptr;
  float *panels_, *thresholds_, *scales_, *samples_, *scores_;
  int64_t* sample_index_;
  uint8_t* codes_;
  uint32_t* passed_;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
