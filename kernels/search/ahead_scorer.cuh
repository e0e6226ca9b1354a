// SPDX-License-Identifier: Apache-2.0
// Scores of a warp's tiles, as tile_scorer.cuh computes them, where a multiprocessor has too few
// warps to hide what loads take: rows are on their way to shared memory while those that have
// arrived are multiplied. A step is a piece of 16 bytes of each of a lane's rows, 2 KB a warp. As
// soon as one is multiplied, the same step of a later pass takes its place: the next pass, or so
// many passes later that four steps are on their way.
// A lane reads back the pieces that it copied itself, and multiplies them in the order of
// tile_scorer.cuh: so it waits for its own copies alone, without a barrier, meets no bank twice,
// and scores have the same bits.
#pragma once

#include "longclock/common/async_copy.cuh"
#include "longclock/common/opaque.cuh"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {

constexpr int kAheadSteps = 4;  // on their way, at least
constexpr int kAheadStepBytes = kTileGroups * kWarp * 16;

// Passes of `steps` steps in a warp's shared memory, and its bytes.
LONGCLOCK_INLINE constexpr int ahead_passes(int steps) {
  return steps == 1 ? 4 : steps == 2 ? 2 : 1;
}
LONGCLOCK_INLINE constexpr int ahead_warp_bytes(int steps) {
  return ahead_passes(steps) * steps * kAheadStepBytes;
}

// Whether rows are read, and which, is known a tile before they are copied: ids, mask and times are
// loaded then. kStride: behaviours from a tile of the warp to its next.
template <class T, RowForm kForm, int kStride>
class AheadScorer : TileScorer<T, kForm, false> {
  using Base = TileScorer<T, kForm, false>;
  using Base::kPasses, Base::kPiece, Base::kRowLanes, Base::kStep, Base::p_, Base::view_;
  using typename Base::Keys, typename Base::Sums;

 public:
  using Base::row;

  LONGCLOCK_INLINE static constexpr int steps_of(int64_t dim) {
    return (static_cast<int>(dim) + kStep - 1) / kStep;
  }

  // memory: ahead_warp_bytes() of the warp's own.
  __device__ AheadScorer(const DeviceSearchParams& p, int64_t q, const SequenceView& view,
                         const QueryOf<T>* shared_query, const SharedTimeTerm& time, char* memory)
      : Base(p, q, view, shared_query, time),
        row_in_tile_(opaque(Base::row())),
        column_(opaque(lane_index() % kRowLanes * kPiece)),
        dim_(opaque(static_cast<int>(p.behaviours.dim))),
        plain_(opaque(static_cast<int>(!p.behaviours.ids && !p.filtered))) {
    const int steps = steps_of(dim_), passes = ahead_passes(steps);
    three_ = opaque(static_cast<int>(steps == 3));
    across_ = opaque(static_cast<int>(kPasses == 2 && passes == 1));
    ahead_ = opaque(across_ ? kStride : passes / kPasses * kStride);
    memory_ = opaque(shared_address(memory) + lane_index() * 16);
    memory_end_ = opaque(memory_ + ahead_warp_bytes(steps));
    // What lies behind the ends of rows is never copied.
    if (column_ + (steps - 1) * kStep < dim_) return;
    for (int i = steps - 1; i < passes * steps; i += steps) {
      uint4* const last = reinterpret_cast<uint4*>(memory + i * kAheadStepBytes) + lane_index();
      for (int j = 0; j < kTileGroups; ++j) last[j * kWarp] = make_uint4(0, 0, 0, 0);
    }
  }

  // Begins to copy the warp's tiles, the first at `first`, before `end`.
  __device__ void begin(unsigned first, unsigned end) {
    end_ = end;
    now_ = memory_;
    look(first);
    const unsigned begin = first;
#pragma unroll 1
    for (int pass = 0;; pass = (pass + 1) % kPasses) {
      copy_pass(rows_of(first, pass, pass == 0));
      if (now_ == memory_) break;
      if (pass == kPasses - 1) first += kStride;
    }
    load_time(begin);
  }

  // The score of behaviour(first) of the next tile; false where it is not valid.
  __device__ bool score(unsigned first, float* out) {
    const bool valid = is_valid(first);
    const bool any = plain_ || __any_sync(kAllLanes, valid);
    float row_scale = 0.0f;
    if constexpr (kInBytes<T>) {
      if (valid && is_known(first)) row_scale = p_.behaviours.key_scale[scale_at_];
    }
    const float product = Base::scaled(dot_rows(first, any), row_scale);
    const int64_t time = time_;
    load_time(first + kStride);
    if (!any) return false;
    const Behaviours& b = p_.behaviours;
    const float dot = is_known(first) ? 0.0f : __int_as_float(0x7fc00000);
    *out = fmaf(query_scale<T>(p_, Base::shared_query_), dot + product,
                time_similarity(Base::time_term_, p_.clocks, b.time.clocks,
                                b.time.clock[0].mlp.hidden, time, view_.query_time));
    return valid;
  }

 private:
  // Of this lane's behaviours in the tiles that are being copied, of which 32 would be too many.
  __device__ uint32_t bit(unsigned first) const { return 1u << first / kStride % 32; }
  __device__ unsigned behaviour(unsigned first) const { return first + row_in_tile_; }
  __device__ bool is_valid(unsigned first) const {
    return plain_ ? behaviour(first) < end_ : (valid_ & bit(first)) != 0;
  }

  __device__ bool is_known(unsigned first) const { return plain_ || (known_ & bit(first)) != 0; }

  // Loads the time of this lane's behaviour of a tile, and where its row's scale lies.
  __device__ void load_time(unsigned first) {
    const bool valid = is_valid(first);
    time_ = valid ? time_of(p_, view_, behaviour(first)) : 0;
    if constexpr (kInBytes<T>) scale_at_ = valid ? Base::scale_at(behaviour(first)) : 0;
  }

  // Loads what says which row this lane's behaviour of a tile has, and whether it is valid.
  __device__ void look(unsigned first) {
    const unsigned m = behaviour(first);
    if (plain_ || m >= end_) return;
    const Behaviours& b = p_.behaviours;
    if (b.ids) id_ = b.ids[view_.position + m];
    if (b.mask != nullptr) mask_ = b.mask[view_.position + m];
    if (b.exclude_future) valid_time_ = time_of(p_, view_, m);
  }

  // Of the tile that was looked at finds which rows are read, and where they are; looks at the
  // next.
  __device__ void begin_tile(unsigned first) {
    const Behaviours& b = p_.behaviours;
    const unsigned m = behaviour(first);
    const bool valid = m < end_ && (b.mask == nullptr || mask_ != 0) &&
                       (!b.exclude_future || valid_time_ < view_.query_time);
    const bool known = !b.ids || is_row(p_, id_);
    if (p_.check) device_check(known || !valid, "ids must be from 0 to N - 1", "search");
    row_ = b.ids ? static_cast<const char*>(b.keys) + id_ * p_.row_bytes
                 : row_after(p_, view_.keys, m);
    valid_ = valid ? valid_ | bit(first) : valid_ & ~bit(first);
    known_ = known ? known_ | bit(first) : known_ & ~bit(first);
    some_ = __any_sync(kAllLanes, valid);
    read_ = __ballot_sync(kAllLanes, valid && known);
    look(first + kStride);
  }

  // This lane's pieces of a step in the rows of a pass.
  struct Rows {
    const char* from[kTileGroups];
    int size[kTileGroups];  // bytes that are read: 16 or 0
    int dim;                // 0: nothing is copied
    __device__ void advance(int steps) {
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) from[j] += steps * (kRowLanes * 16);
    }
  };

  // The first step. begins: a tile, with this pass.
  __device__ Rows rows_of(unsigned first, int pass, bool begins) {
    Rows rows;
    if (plain_) {
      const unsigned m = first + Base::row_in_tile(pass, 0);
      rows.dim = first < end_ ? dim_ : 0;
      rows.from[0] = row_after(p_, view_.keys + column_ * sizeof(T), m);
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) {
        rows.from[j] = row_after(p_, rows.from[0], j * Base::kGroupRows);
        rows.size[j] = 16;
      }
      if (first + kWarpRows > end_) {
#pragma unroll
        for (int j = 0; j < kTileGroups; ++j) {
          if (m + j * Base::kGroupRows >= end_) rows.size[j] = 0;
        }
      }
      return rows;
    }
    if (begins) begin_tile(first);
    rows.dim = some_ ? dim_ : 0;
#pragma unroll
    for (int j = 0; j < kTileGroups; ++j) {
      const int lane = Base::scoring_lane(pass, j);
      const uint64_t row = __shfl_sync(kAllLanes, reinterpret_cast<uint64_t>(row_), lane);
      rows.from[j] = reinterpret_cast<const char*>(row) + column_ * sizeof(T);
      rows.size[j] = (read_ >> lane & 1) != 0 ? 16 : 0;
    }
    return rows;
  }

  using Groups = std::make_integer_sequence<int, kTileGroups>;
  static constexpr int kGroupBytes = kWarp * 16;

  // Begins to copy the step kStepAfter steps after that of `rows` and `at`, whose column is d.
  // Always ends a group.
  template <int kStepAfter>
  __device__ void copy(const Rows& rows, int d, uint32_t at) const {
    if (d + kStepAfter * kStep < rows.dim) {
      [&]<int... kGroup>(std::integer_sequence<int, kGroup...>) {
        (copy16_async<kStepAfter * kAheadStepBytes + kGroup * kGroupBytes,
                      kStepAfter * kRowLanes * 16>(at, rows.from[kGroup], rows.size[kGroup]),
         ...);
      }(Groups());
    }
    end_copy_group();
  }

  // Begins to copy all steps of a pass.
  __device__ void copy_pass(Rows rows) {
    uint32_t at = now_;
#pragma unroll 1
    for (int d = column_; d - column_ < dim_; d += kStep) {
      copy<0>(rows, d, at);
      rows.advance(1);
      at += kAheadStepBytes;
    }
    end_pass(at);
  }

  // Multiplies a step, as copy() says, once it has arrived, and lets that of `rows` take its place.
  template <int kStepAfter>
  __device__ void multiply(const Rows& rows, int d, uint32_t at, Sums& sums) const {
    wait_for_copies<kAheadSteps - 1>();
    Keys keys;
    [&]<int... kGroup>(std::integer_sequence<int, kGroup...>) {
      ((keys[kGroup] = load16_shared<kStepAfter * kAheadStepBytes + kGroup * kGroupBytes>(at)),
       ...);
    }(Groups());
    Base::multiply(keys, d + kStepAfter * kStep, dim_, sums);
    copy<kStepAfter>(rows, d, at);
  }

  // at: behind its last step.
  __device__ void end_pass(uint32_t at) {
    if (three_) end_copy_group();  // four groups are then a pass's, as with one, two and four steps
    now_ = at == memory_end_ ? memory_ : at;
  }

  // Adds up the products of a pass of the next tile, whose place `rows` take.
  __device__ void multiply_pass(Rows& rows, Sums& sums) {
    uint32_t at = now_;
    int d = column_;
#pragma unroll 1
    for (int left = dim_;; left -= 2 * kStep) {
      multiply<0>(rows, d, at, sums);
      if (left <= kStep) {
        at += kAheadStepBytes;
        break;
      }
      multiply<1>(rows, d, at, sums);
      at += 2 * kAheadStepBytes;
      if (left <= 2 * kStep) break;
      d += 2 * kStep;
      rows.advance(2);
    }
    end_pass(at);
  }

  // Dot products with the rows of the next tile; `any`: some have been copied.
  __device__ float dot_rows(unsigned first, bool any) {
    float dots[2];
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      Rows rows = rows_of(across_ && pass == 0 ? first : first + ahead_,
                          across_ ? kPasses - 1 - pass : pass, pass == (across_ ? 1 : 0));
      Sums sums = {};
      if (any) {
        multiply_pass(rows, sums);
      } else {
        copy_pass(rows);
      }
      dots[pass] = Base::gather(sums);
    }
    if constexpr (kPasses == 1) return dots[0];
    return Base::join(dots[0], dots[1]);
  }

  int row_in_tile_;                     // row()
  int column_, dim_;                    // of this lane's first piece
  int plain_;                           // whether rows follow each other, and all are valid
  int three_;                           // whether there are three steps
  int across_;                          // whether it is the next pass that takes a pass's place
  int ahead_;                           // behaviours to the tile that is copied
  unsigned end_ = 0;                    // behaviours
  uint32_t memory_, memory_end_, now_;  // of this lane, and its current pass
  int64_t time_ = 0;                    // of the next tile
  int64_t scale_at_ = 0;
  // Where rows are not plain, of the tile that is being copied; and of the tile after it.
  bool some_ = false;  // behaviours are valid,
  uint32_t read_ = 0;  // and of these lanes rows are read
  const char* row_ = nullptr;
  uint32_t valid_ = 0, known_ = 0;
  int64_t id_ = 0, valid_time_ = 0;
  uint8_t mask_ = 0;
};

}  // namespace longclock
