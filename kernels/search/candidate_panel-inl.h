// SPDX-License-Identifier: Apache-2.0
// Candidates as panels: kPanelLanes of them, words in rows, so that a candidate is a lane.
#pragma once

#include "longclock/common/scratch.h"
#include "longclock/search/row_words-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

template <class Words>
class PanelPacker {
 public:
  PanelPacker(const RowWords<Words>& words, Scratch* scratch)
      : words_(words), rows_(scratch->take<float>(kPanelLanes * words.count())) {}

  int64_t panel_size() const { return words_.count() * kPanelLanes; }
  // n <= kPanelLanes queries, as RowWords takes them; zeros for the candidates beyond.
  void pack(const float* const* queries, int64_t n, float* panel) const {
    const float* rows[kPanelLanes];
    for (int64_t i = 0; i < n; ++i) {
      float* const row = rows_ + i * words_.count();
      words_.from_query(queries[i], row);
      rows[i] = row;
    }
    pack_panel<FloatWords>(rows, n, words_.count(), panel);
  }

 private:
  const RowWords<Words>& words_;
  float* rows_;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
