// SPDX-License-Identifier: Apache-2.0
// Features with few values, such as an action or a device: the products of all rows of their tables
// with a panel of candidates are made once, and those of a behaviour are looked up, like s.
#pragma once

#include "longclock/common/scratch.h"
#include "longclock/search/row_words-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

template <class T>
class SmallTables {
  using Words = typename WordsOf<T>::Type;

 public:
  SmallTables(const Behaviours& b, const RowWords<Words>& words, int64_t panels, Scratch* scratch)
      : b_(b), words_(words) {
    int64_t most = 0;
    for (int i = 0; i < words.looked_ups(); ++i) {
      const int64_t rows = round_up(feature(i).table_rows, kTileRows);
      stride_[i] = rows * kPanelLanes;
      products_[i] = scratch->take<float>(panels * stride_[i]);
      most = max_of(most, words.looked_up(i).count);
    }
    copies_ = scratch->take<float>(kTileRows * most + kLanes);
  }

  // Makes the products with a panel, of candidates as RowWords takes them.
  void multiply(int64_t panel, const float* candidates) {
    for (int i = 0; i < words_.looked_ups(); ++i) {
      const auto [_, begin, words] = words_.looked_up(i);
      const Feature& table = feature(i);
      for (int64_t at = 0; at < table.table_rows; at += kTileRows) {
        const char* rows[kTileRows];
        for (int64_t a = 0; a < kTileRows; ++a) {
          float* const copy = copies_ + a * words;
          const int64_t row = min_of(at + a, table.table_rows - 1);
          RowWords<Words>::widen(static_cast<const T*>(table.keys) + row * table.row_stride,
                                 table.dim, copy);
          rows[a] = reinterpret_cast<const char*>(copy);
        }
        Vf sums[kTileRows][2];
        multiply_tile<Words, kTileRows>(rows, candidates + begin * kPanelLanes, words, sums);
        std::memcpy(products_[i] + panel * stride_[i] + at * kPanelLanes, sums, sizeof(sums));
      }
    }
  }

  int count() const { return words_.looked_ups(); }
  // The products of a row with a panel.
  const float* products(int i, int64_t panel, int64_t row) const {
    return products_[i] + panel * stride_[i] + row * kPanelLanes;
  }

 private:
  const Feature& feature(int i) const { return b_.features[words_.looked_up(i).feature]; }

  const Behaviours& b_;
  const RowWords<Words>& words_;
  int64_t stride_[kMaxFeatures];  // of a panel
  float* products_[kMaxFeatures];
  float* copies_;
};

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
