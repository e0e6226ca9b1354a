// SPDX-License-Identifier: Apache-2.0
// Candidates as panels: kPanelLanes of them, words in rows, so that a candidate is a lane.
#pragma once

#include "longclock/common/scratch.h"
#include "longclock/search/tile-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

template <class Words>
class PanelPacker {
 public:
  PanelPacker(int64_t dim, Scratch* scratch)
      : words_(Words::words(dim)), rows_(scratch->take<float>(kPanelLanes * words_)) {}

  int64_t panel_size() const { return words_ * kPanelLanes; }
  // n <= kPanelLanes 32-bit rows, padded with zeros; zeros for the candidates beyond.
  void pack(const float* const* queries, int64_t n, float* panel) const {
    const float* rows[kPanelLanes];
    for (int64_t i = 0; i < n; ++i) {
      Words::from_floats(queries[i], words_, rows_ + i * words_);
      rows[i] = rows_ + i * words_;
    }
    pack_panel<FloatWords>(rows, n, words_, panel);
  }

 private:
  int64_t words_;
  float* rows_;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
