// SPDX-License-Identifier: Apache-2.0
// How a warp reads the rows of 32 behaviours. Keys go from global memory to registers in pieces of
// 16 bytes, neighbouring lanes side by side: eight lanes read a line of 128 bytes of a row, so that
// a request is four whole lines, or, where rows are no longer than 64 bytes, four lanes a row and
// eight rows a request. kGroups such groups of rows are in flight at a time.
#pragma once

#include "longclock/common/vector16.cuh"
#include "longclock/search/row_form.cuh"
#include "longclock/search/sequence_view.cuh"
#include "longclock/time/time_term.cuh"

namespace longclock {

constexpr int kWarpRows = kWarp;

// A tile takes as many passes as its groups do not hold at once.
template <class T, RowForm kForm, int kGroups>
class TileRows {
 public:
  static constexpr bool kAligned = kForm != RowForm::kElements;
  static constexpr int kPiece = kVector16<T>;
  static constexpr int kRowLanes = kForm == RowForm::kLines ? 8 : 4;
  static constexpr int kGroupRows = kWarp / kRowLanes;
  static constexpr int kPasses = kWarpRows / (kGroupRows * kGroups);
  static constexpr int kStep = kRowLanes * kPiece;  // columns that a row's lanes take at a time
  using Pieces = const T* [kGroups];                // of this lane, one of each group
  using Keys = uint4[kGroups];

  __device__ TileRows(const DeviceSearchParams& p, const SequenceView& view) : p_(p), view_(view) {}

  // The row of a tile whose piece of group j this lane reads in a pass.
  __device__ static unsigned row_in_tile(int pass, int j) {
    return (pass * kGroups + j) * kGroupRows + lane_index() / kRowLanes;
  }

  // This lane's first pieces in its rows of a pass; in some other row where there is none.
  __device__ void find_rows(int pass, unsigned first, unsigned end, Pieces& pieces) const {
    const Behaviours& b = p_.behaviours;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const unsigned m = min(first + row_in_tile(pass, j), end - 1);
      const char* row;
      if (b.ids) {
        const int64_t id = b.ids[view_.position + m];
        row = static_cast<const char*>(b.keys) + (is_row(p_, id) ? id : 0) * p_.row_bytes;
      } else {
        row = row_after(p_, view_.keys, m);
      }
      pieces[j] = reinterpret_cast<const T*>(row + lane_index() % kRowLanes * 16);
    }
  }

  // The same of a feature's rows.
  __device__ void find_feature_rows(const Feature& feature, int pass, unsigned first, unsigned end,
                                    Pieces& pieces) const {
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const char* const row =
          feature_row(feature, sizeof(T), view_, min(first + row_in_tile(pass, j), end - 1));
      pieces[j] = reinterpret_cast<const T*>(row + lane_index() % kRowLanes * 16);
    }
  }

  // This lane's pieces `columns` after their first. kWhole: they lie inside the rows; else `left`
  // columns are left there.
  template <bool kWhole>
  __device__ void load(const Pieces& pieces, int columns, int64_t left, Keys& keys) const {
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      if constexpr (!kAligned && sizeof(T) == 1) {
        keys[j] = load_bytes(pieces[j] + columns, left);
        continue;
      }
      keys[j] = kWhole ? __ldg(reinterpret_cast<const uint4*>(pieces[j] + columns))
                       : load16<T, kAligned>(pieces[j] + columns, 0, left);
    }
  }

 protected:
  const DeviceSearchParams& p_;
  const SequenceView& view_;
};

// What a block needs of sequence s, and of s(). By all threads; the caller puts a barrier behind
// it. sequence() is called by one of them.
template <class Sequence>
__device__ __forceinline__ void load_view(const DeviceSearchParams& p, const Sequence& sequence,
                                          SequenceView* view, SharedTimeTerm* time) {
  const TimeTerm& term = p.behaviours.time;
  if (threadIdx.x == 0) {
    *view = view_sequence(p, sequence());
    read_query_clocks(p.clocks, term.clocks, view->query_time, time);
  }
  load_time_mlps(term.clock[0].mlp, term.clocks, time);
}

}  // namespace longclock
