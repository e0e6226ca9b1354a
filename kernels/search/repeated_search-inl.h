// SPDX-License-Identifier: Apache-2.0
// Many candidates against a history whose rows repeat: each distinct row is multiplied once, and
// only the time term is a behaviour's own. The same bits as CandidateSearch gives.
#pragma once

#include "longclock/search/candidate_panel-inl.h"
#include "longclock/search/distinct_rows-inl.h"
#include "longclock/search/dot_search.h"
#include "longclock/search/key_list-inl.h"
#include "longclock/search/passed-inl.h"
#include "longclock/search/sampled_thresholds-inl.h"
#include "longclock/selection/topk_buffer-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

template <class T>
class RepeatedSearch {
  using Words = typename WordsOf<T>::Type;

 public:
  // `all`: the task's rows, all of which it has. Behaviours have no features.
  RepeatedSearch(const DotSearchParams& p, const DistinctRows<T>& all, Scratch* scratch)
      : p_(p),
        all_(all),
        words_(p.behaviours, all.valid()),
        packer_(words_, scratch),
        list_(p.behaviours, words_, 0, scratch) {
    panel_ = scratch->take<float>(packer_.panel_size());
    products_ = scratch->take<float>(round_up(all.count(), kTileRows) * kPanelLanes);
    samples_ = scratch->take<float>(kMaxSamples * kPanelLanes);
    codes_ = scratch->take<uint8_t>(sampled_codes(kMaxSamples));
    passed_ = scratch->take<uint32_t>(kTopKBlock * kPanelLanes + kListSlack);
  }

  // The best of `count` candidates into as many empty buffers; fewer than k of them where `sample`
  // is set and its threshold was too high. Returns the number of valid behaviours.
  int64_t find(const float* const* queries, int64_t count, bool sample, TopKBuffer* best) {
    for (int64_t first = 0; first < count; first += kPanelLanes) {
      const int64_t n = min_of(kPanelLanes, count - first);
      packer_.pack(queries + first, n, panel_);
      for (int64_t i = 0; i < kPanelLanes; ++i) {
        scales_[i] = query_scale<T>(p_.behaviours, queries[first + min_of(i, n - 1)], p_.scale);
      }
      multiply();
      if (sample) set_bars(n, best + first);
      walk(n, best + first);
    }
    return all_.valid();
  }

 private:
  // Products of every row with the panel.
  void multiply() {
    for (int64_t at = 0; at < all_.count(); at += kListKeys) {
      list_.clear();
      const int64_t n = min_of(kListKeys, all_.count() - at);
      for (int64_t i = 0; i < round_up(n, kTileRows); ++i) {
        list_.append_of_table(all_.rows()[at + min_of(i, n - 1)]);
      }
      list_.widen();
      for (int64_t i = 0; i < n; i += kTileRows) {
        Vf sums[kTileRows][2];
        for (int64_t a = 0; a < kTileRows; ++a) sums[a][0] = sums[a][1] = list_.begin(i + a);
        list_.template add<kTileRows>(i, kTileRows, panel_, sums);
        for (int64_t a = 0; a < kTileRows; ++a) {
          sums[a][0] = list_.product(sums[a][0], i + a);
          sums[a][1] = list_.product(sums[a][1], i + a);
        }
        std::memcpy(products_ + (at + i) * kPanelLanes, sums, sizeof(sums));
      }
    }
  }

  // A half of the panel's scores of a behaviour.
  Vf score(int64_t behaviour, int64_t half) const {
    const float* products = products_ + all_.row_of()[behaviour] * kPanelLanes;
    const Vf scale = load(scales_ + half * kLanes);
    return fma(scale, load(products + half * kLanes), splat(all_.s()[behaviour]));
  }

  void set_bars(int64_t n, TopKBuffer* best) {
    const Sampling sampling(all_.valid(), p_.k);
    if (!sampling.pays(sampling.count)) return;
    for (int64_t i = 0; i < sampling.count; ++i) {
      for (int64_t half = 0; half < 2; ++half) {
        store(score(i * sampling.step, half), samples_ + i * kPanelLanes + half * kLanes);
      }
    }
    set_sampled_thresholds(samples_, sampling.count, sampling, p_.k, codes_, n, best);
  }

  void walk(int64_t n, TopKBuffer* best) {
    alignas(64) float thresholds[kPanelLanes] = {};
    alignas(64) RowBits passed[kTopKBlock];
    const uint64_t lanes = lanes_of_rows(n);
    for (int64_t at = 0; at < all_.valid(); at += kTopKBlock) {
      for (int64_t i = 0; i < n; ++i) thresholds[i] = best[i].threshold();
      const PanelThresholds panel_thresholds(thresholds);
      const int64_t rows = min_of(kTopKBlock, all_.valid() - at);
      for (int64_t i = 0; i < rows; ++i) {
        passed[i] = panel_thresholds.passed(score(at + i, 0), score(at + i, 1));
      }
      const int64_t count = list_passed(passed, rows, lanes, passed_);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t lane = passed_[i] % kPanelLanes, behaviour = at + passed_[i] / kPanelLanes;
        const float product = products_[all_.row_of()[behaviour] * kPanelLanes + lane];
        const float score = fma(scales_[lane], product, all_.s()[behaviour]);
        best[lane].add(score, all_.index()[behaviour]);
      }
      for (int64_t i = 0; i < n; ++i) best[i].make_room();
    }
  }

  const DotSearchParams& p_;
  const DistinctRows<T>& all_;
  RowWords<Words> words_;
  PanelPacker<Words> packer_;
  KeyList<T> list_;
  float *panel_, *products_, *samples_;
  uint8_t* codes_;
  uint32_t* passed_;
  alignas(64) float scales_[kPanelLanes];  // of the panel's candidates
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
