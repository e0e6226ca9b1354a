// SPDX-License-Identifier: Apache-2.0
// Scores of 32 behaviours of one query, by one warp, whose rows it reads as tile_rows.cuh says.
// 16-bit keys go through tensor cores. The four registers of a piece lie as a row g and a row g + 8
// of A: the same key twice, with other columns. B holds the query's columns for the first in its
// even columns and those for the second in its odd ones, so that one mma takes one piece as it was
// loaded. Where two quads share a row, columns 0 and 1 of every four of B belong to the first, 2
// and 3 to the second.
#pragma once

#include <type_traits>

#include "longclock/common/mma.cuh"
#include "longclock/search/tile_rows.cuh"

namespace longclock {

constexpr int kTileGroups = 4;  // of eight rows, or of four in two passes
// Blocks of 256 threads a multiprocessor whose registers suffice for whole pieces.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kTileBlocks = 2;
#else
constexpr int kTileBlocks = 3;
#endif

// kElements: the query is read where it lies. Else load_query has put it into shared memory.
// kFeatures: behaviours have some.
template <class T, RowForm kForm, bool kFeatures>
class TileScorer : protected TileRows<T, kForm, kTileGroups> {
 protected:
  using Rows = TileRows<T, kForm, kTileGroups>;
  using Rows::kAligned, Rows::kPasses, Rows::kPiece, Rows::kRowLanes, Rows::kStep;
  using Rows::p_, Rows::view_;
  using typename Rows::Keys, typename Rows::Pieces;

 public:
  __device__ TileScorer(const DeviceSearchParams& p, int64_t q, const SequenceView& view,
                        const QueryOf<T>* shared_query, const SharedTimeTerm& time)
      : Rows(p, view), time_term_(time), shared_query_(shared_query), q_(q) {}

  // The behaviour of a tile that this lane scores.
  __device__ static int row() {
    const int lane = lane_index();
    if constexpr (kPasses == 1) return lane % 4 * 8 + lane / 4;
    return (owns_first_pass() ? 0 : 16) + group_of_lane() * 4 + lane / 8;
  }

  // And its number in the sequence, of a tile that begins at `first`. Unsigned: near the end of the
  // longest sequence, of 2^31 - 1 behaviours, a tile reaches past what an int holds.
  __device__ static unsigned behaviour(unsigned first) {
    return first + static_cast<unsigned>(row());
  }

  // The score of behaviour(first); false where it is not valid. first < end <= the length.
  __device__ bool score(unsigned first, unsigned end, float* out) const {
    const Behaviours& b = p_.behaviours;
    const unsigned m = behaviour(first);
    const bool valid = m < end && (!p_.filtered || is_valid(p_, view_, m));
    if (!__any_sync(kAllLanes, valid)) return false;
    bool known = true;
    if (b.ids && valid) {
      known = is_row(p_, b.ids[view_.position + m]);
      if (p_.check) device_check(known, "ids must be from 0 to N - 1", "search");
    }
    bool readable = !b.ids || p_.table_rows > 0;
    if constexpr (kFeatures) {
      if (valid) known = known && knows_features(p_, view_, m);
      if (p_.check) device_check(known, "ids must be from 0 to N - 1", "search");
      for (int f = 0; f < b.feature_count; ++f) {
        readable = readable && (!b.features[f].ids || b.features[f].table_rows > 0);
      }
    }
    const float dot = known && readable ? 0.0f : __int_as_float(0x7fc00000);
    float row_scale = 0.0f;
    if constexpr (kInBytes<T>) {
      if (valid && known) row_scale = b.key_scale[scale_at(m)];
    }
    const float product = readable ? scaled(dot_rows(first, end), row_scale) : 0.0f;
    // Read late, for the sake of registers: other warps hide what it takes.
    const int64_t time = valid ? time_of(p_, view_, m) : 0;
    *out = fmaf(query_scale<T>(p_, shared_query_), dot + product,
                time_similarity(time_term_, p_.clocks, b.time.clocks, b.time.clock[0].mlp.hidden,
                                time, view_.query_time));
    return valid;
  }

 protected:
  using Sums = SumOf<T>[kTileGroups][kHasMma<T> ? 4 : 1];

  // Where the scale of the row of behaviour m lies.
  __device__ int64_t scale_at(unsigned m) const {
    const int64_t position = view_.position + m;
    return p_.behaviours.ids ? p_.behaviours.ids[position] : position;
  }
  __device__ static float scaled(float product, float row_scale) {
    if constexpr (kInBytes<T>) return __fmul_rn(product, row_scale);
    return product;
  }

  // Of the eight lanes of a row, lane 4 h + 2 i + j ends with the dot product of its row of group
  // 2 i + h, in the first pass where j is h.
  __device__ static int half() { return lane_index() / 4 % 2; }
  __device__ static bool owns_first_pass() { return lane_index() % 2 == half(); }
  __device__ static int group_of_lane() { return lane_index() / 2 % 2 * 2 + half(); }

  // Adds the products of pieces with column d of the query, in shared memory or where it lies; its
  // columns from `end` on count as zeros.
  __device__ void multiply(const Keys& key, int d, int64_t end, Sums& sums) const {
    if constexpr (kInBytes<T>) {
      multiply_bytes(key, d, end, sums);
    } else if constexpr (kHasMma<T>) {
      const int column = lane_index() / 4;  // of B
      const bool odd = column % 2 == 1;
      uint2 query;
      if constexpr (kAligned) {
        // A lane of the other half of a row reads for this one, which is 4 pieces away.
        const int other = kPasses == 1 ? 0 : (column / 2 % 2 - half()) * 4 * kPiece;
        query = *reinterpret_cast<const uint2*>(shared_query_ + d + other + (odd ? kPiece / 2 : 0));
      } else {
        const uint4 piece = query_piece<T, false>(p_, q_, d, end);
        query = odd ? make_uint2(piece.y, piece.w) : make_uint2(piece.x, piece.z);
      }
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) {
        mma_16x8x16<T>(sums[j], key[j].x, key[j].y, key[j].z, key[j].w, query.x, query.y);
      }
    } else {
      float query[kPiece], values[kPiece];
      widen16<T>(kAligned ? *reinterpret_cast<const uint4*>(shared_query_ + d)
                          : query_piece<T, false>(p_, q_, d, end),
                 query);
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) {
        widen16<T>(key[j], values);
#pragma unroll
        for (int i = 0; i < kPiece; ++i) sums[j][0] = fmaf(values[i], query[i], sums[j][0]);
      }
    }
  }

  // The same of rows in bytes, with four of a query's elements at a time where these are floats.
  __device__ void multiply_bytes(const Keys& key, int d, int64_t end, Sums& sums) const {
    if constexpr (kIsInt8Query<T>) {
      const uint4 query = *reinterpret_cast<const uint4*>(shared_query_ + d);
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) sums[j][0] = add_bytes(key[j], query, sums[j][0]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float4 query = four_of_query(d + 4 * i, end);
#pragma unroll
        for (int j = 0; j < kTileGroups; ++j) {
          float values[4];
          widen_bytes<T>(word_of(key[j], i), values);
          sums[j][0] = add_four(values, query, sums[j][0]);
        }
      }
    }
  }

  // Columns d to d + 3 of a query of floats.
  __device__ float4 four_of_query(int d, int64_t end) const {
    if constexpr (kAligned) {
      return *reinterpret_cast<const float4*>(shared_query_ + byte_query_place(d));
    } else {
      const auto column = [&](int i) {
        return d + i < end ? query_element(p_, q_ * p_.query_dim + d + i) : 0.0f;
      };
      return make_float4(column(0), column(1), column(2), column(3));
    }
  }

  // Dot products of a pass.
  __device__ float dot_pass(int pass, unsigned first, unsigned end) const {
    Pieces pieces;
    Rows::find_rows(pass, first, end, pieces);
    Sums sums = {};
    add_products(pieces, static_cast<int>(p_.behaviours.dim), 0, sums);
    if constexpr (kFeatures) {
      int at = next_columns(0, p_.behaviours.dim);
#pragma unroll 1
      for (int f = 0; f < p_.behaviours.feature_count; ++f) {
        const Feature& feature = p_.behaviours.features[f];
        Rows::find_feature_rows(feature, pass, first, end, pieces);
        add_products(pieces, static_cast<int>(feature.dim), at, sums);
        at = next_columns(at, feature.dim);
      }
    }
    return gather(sums);
  }

  // Where the query's columns of the next feature begin.
  __device__ static int next_columns(int at, int64_t dim) {
    if constexpr (!kAligned) return at + static_cast<int>(dim);
    return at + step_bytes(dim, sizeof(T)) / static_cast<int>(sizeof(T));
  }

  // Adds the products of rows of `dim` columns with the query's from `at` on.
  __device__ void add_products(Pieces& pieces, int dim, int at, Sums& sums) const {
    const auto step = [&](int columns) {
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) pieces[j] += columns;
    };
    int d = lane_index() % kRowLanes * kPiece;
    if constexpr (kAligned && !kIsInt8Query<T> && !kIsFloat8<T>) {
      // Two steps at a time: eight loads a lane are in flight. (Registers are short for sums of
      // bytes and where float8 is decoded, whose rows seldom have two steps.)
#pragma unroll 1
      for (int left = dim / (2 * kStep); left > 0; --left, d += 2 * kStep) {
        Keys keys, next;
        Rows::template load<true>(pieces, 0, 0, keys);
        Rows::template load<true>(pieces, kStep, 0, next);
        multiply(keys, at + d, at + dim, sums);
        multiply(next, at + d + kStep, at + dim, sums);
        step(2 * kStep);
      }
    }
#pragma unroll 1
    for (; (d & -kStep) < dim; d += kStep, step(kStep)) {
      Keys keys;
      Rows::template load<false>(pieces, 0, dim - d, keys);
      multiply(keys, at + d, at + dim, sums);
    }
  }

  // Dot products of the query with the rows of a tile; each lane returns that of its row().
  __device__ float dot_rows(unsigned first, unsigned end) const {
    if constexpr (kPasses == 1) {
      return dot_pass(0, first, end);
    } else {
      float of_first, of_second;
      if (!kFeatures && p_.behaviours.dim <= kStep) {
        // One step: the loads of both passes are in flight.
        const int d = lane_index() % kRowLanes * kPiece;
        Pieces pieces;
        Keys keys, next;
        Rows::find_rows(0, first, end, pieces);
        const int64_t dim = p_.behaviours.dim;
        Rows::template load<false>(pieces, 0, dim - d, keys);
        Rows::find_rows(1, first, end, pieces);
        Rows::template load<false>(pieces, 0, dim - d, next);
        Sums sums = {};
        multiply(keys, d, dim, sums);
        of_first = gather(sums);
        Sums more = {};
        multiply(next, d, dim, more);
        of_second = gather(more);
      } else {
        of_first = dot_pass(0, first, end);
        of_second = dot_pass(1, first, end);
      }
      return join(of_first, of_second);
    }
  }

  // The dot product of this lane's row(), of what gather() left in two passes.
  __device__ static float join(float of_first, float of_second) {
    const bool own = owns_first_pass();
    if constexpr (kHasMma<T>) {
      const float given = __shfl_xor_sync(kAllLanes, of_second, 1);
      return own ? of_first : given;
    } else {
      return (own ? of_first : of_second) +
             __shfl_xor_sync(kAllLanes, own ? of_second : of_first, 1);
    }
  }

  // The lane whose row() it is of which this lane reads the piece of group j in a pass.
  __device__ static int scoring_lane(int pass, int j) {
    const int lane = lane_index();
    if constexpr (kPasses == 1) return (lane & -4) + j;
    return (lane & -8) + ((j % 2 * 5 + j / 2 * 2) ^ pass);
  }

  // Of the sums of four groups, what this lane ends with: of quads, the dot product of its row. Of
  // lines, that of its row of group_of_lane(): in fp32 one half, of which the lane beside it has
  // the other; on tensor cores all of it, where the lane owns the first pass, and else nothing of
  // use.
  __device__ float gather(const Sums& sums) const {
    const int lane = lane_index() % 4;
    const bool odd = lane % 2 == 1, upper = lane >= 2;
    const auto exchange = [](bool second, float a, float b, int mask) {
      return (second ? b : a) + __shfl_xor_sync(kAllLanes, second ? a : b, mask);
    };
    const auto sum = [&](int j) { return static_cast<float>(sums[j][0]); };
    if constexpr (kHasMma<T>) {
      float dots[kTileGroups];
#pragma unroll
      for (int j = 0; j < kTileGroups; ++j) dots[j] = sums[j][0] + sums[j][3];
      if constexpr (kPasses == 1) {
        return upper ? (odd ? dots[3] : dots[2]) : (odd ? dots[1] : dots[0]);
      } else {
        // The sums of the two halves of a row meet: five lanes away they are of the same columns.
        return exchange(half() == 1, upper ? dots[2] : dots[0], upper ? dots[3] : dots[1], 5);
      }
    } else if constexpr (kPasses == 1) {
      // Each step halves what a lane holds.
      return exchange(upper, exchange(odd, sum(0), sum(1), 1), exchange(odd, sum(2), sum(3), 1), 2);
    } else {
      const bool second = half() == 1;
      return exchange(upper, exchange(second, sum(0), sum(1), 4),
                      exchange(second, sum(2), sum(3), 4), 2);
    }
  }

  const SharedTimeTerm& time_term_;
  const QueryOf<T>* shared_query_;

 private:
  int64_t q_;
};

}  // namespace longclock
