// SPDX-License-Identifier: Apache-2.0
// Scores of 32 behaviours of up to 16 queries, by one warp, whose rows it reads once for all of
// them, as tile_rows.cuh says, and of each of which s is evaluated once.
// 16-bit keys go through tensor cores: queries are the 16 rows of A, and a piece of a key is, as it
// was loaded, two times two words of a column of B: words x and z, and y and w. Where two quads
// share a row, each half of the queries' columns multiplies all eight columns of B, of which the
// even or the odd ones belong to that half; the other products are of no use.
// Every product is added up in the order in which tile_scorer.cuh does it for one query, so that
// scores have the same bits.
#pragma once

#include <type_traits>

#include "longclock/common/mma.cuh"
#include "longclock/search/few_tiles.h"
#include "longclock/search/tile_rows.cuh"
#include "longclock/time/time_term.cuh"

namespace longclock {

constexpr int kFewGroups = 2;  // of rows, two steps of which are in flight

// Copies queries [begin, begin + count), rounded to T, to `rows`: a table's columns after the
// other's, each padded with zeros to whole steps. By all threads.
template <class T>
__device__ __forceinline__ void load_few_queries(const DeviceSearchParams& p, int64_t begin,
                                                 int count, int row_bytes, char* rows) {
  int64_t column = 0;
  int place = 0;  // bytes
  const auto load = [&](int64_t dim) {
    const int bytes = step_bytes(dim, sizeof(T)), pieces = bytes / 16;
    for (int i = threadIdx.x; i < count * pieces; i += blockDim.x) {
      const int q = i / pieces, piece = i % pieces;
      *reinterpret_cast<uint4*>(rows + q * row_bytes + place + piece * 16) = query_piece<T, false>(
          p, begin + q, static_cast<int>(column) + piece * kVector16<T>, column + dim);
    }
    column += dim;
    place += bytes;
  };
  load(p.behaviours.dim);
#pragma unroll 1
  for (int f = 0; f < p.behaviours.feature_count; ++f) load(p.behaviours.features[f].dim);
}

// The same of queries of rows in bytes, a warp each.
template <class Query>
__device__ __forceinline__ void load_few_byte_queries(const DeviceSearchParams& p, int64_t begin,
                                                      int count, int row_bytes, char* rows) {
  for (int q = warp_index(); q < count; q += static_cast<int>(blockDim.x) / kWarp) {
    Query* const row = reinterpret_cast<Query*>(rows + q * row_bytes);
    if constexpr (std::is_same_v<Query, int8_t>) {
      load_int8_query(p, begin + q, row);
    } else {
      load_byte_query(p, begin + q, lane_index(), kWarp, row);
    }
  }
}

template <class T, RowForm kForm>
class FewScorer : TileRows<T, kForm, kFewGroups> {
  using Rows = TileRows<T, kForm, kFewGroups>;
  using Rows::kAligned, Rows::kPasses, Rows::kPiece, Rows::kRowLanes, Rows::kStep;
  using Rows::p_, Rows::view_;
  using typename Rows::Keys, typename Rows::Pieces;

 public:
  // rows: `queries` of them, as load_few_queries() leaves them.
  __device__ FewScorer(const DeviceSearchParams& p, const SequenceView& view,
                       const SharedTimeTerm& time, const char* rows, int row_bytes, int queries)
      : Rows(p, view),
        time_(time),
        rows_(reinterpret_cast<const QueryOf<T>*>(rows)),
        row_stride_(row_bytes / static_cast<int>(sizeof(QueryOf<T>))),
        queries_(queries) {}

  // Calls out(query, i, score, valid) for behaviours first + i, i < 32; one is not valid either
  // where it is not before `end`.
  template <class Out>
  __device__ void score(unsigned first, unsigned end, const Out& out) const {
    const Behaviours& b = p_.behaviours;
    const unsigned m = first + lane_index();
    const bool valid = m < end && (!p_.filtered || is_valid(p_, view_, m));
    const uint32_t all_valid = __ballot_sync(kAllLanes, valid);
    if (all_valid == 0) {
      for (int q = 0; q < queries_; ++q) out(q, lane_index(), 0.0f, false);
      return;
    }
    const bool readable = has_rows();
    OfRow own = {};
    if (valid) {
      bool known = readable && knows_features(p_, view_, m);
      if (b.ids) known = is_row(p_, b.ids[view_.position + m]) && known;
      if (p_.check) device_check(known, "ids must be from 0 to N - 1", "search");
      own.s = known ? time_similarity(time_, p_.clocks, b.time.clocks, b.time.clock[0].mlp.hidden,
                                      time_of(p_, view_, m), view_.query_time)
                    : __int_as_float(0x7fc00000);
      if constexpr (kInBytes<T>) {
        const int64_t position = view_.position + m;
        if (known) own.scale = b.key_scale[b.ids ? b.ids[position] : position];
      }
    }
#pragma unroll 1
    for (int pass = 0; pass < kPasses; ++pass) {
      Sums sums = {};
      if (readable) add_rows(pass, first, end, sums);
      for_each_dot(
          pass, sums,
          [&](int query, int row, float dot, const OfRow& of_row) {
            out(query, row, score_of(query, dot, of_row), (all_valid >> row & 1) != 0);
          },
          own);
    }
  }

 private:
  static constexpr int kHalves = kRowLanes / 4;  // of a row in a step, a quad each
  using TensorSums = float[kFewGroups][kHalves][2][4];
  using PlainSums = SumOf<T>[kFewGroups][kTileQueries];
  using Sums = std::conditional_t<kHasMma<T>, TensorSums, PlainSums>;

  // What a score has of its row besides the dot product: s, and of rows in bytes the scale.
  struct OfFloats {
    float s;
    __device__ OfFloats from(int lane) const { return {__shfl_sync(kAllLanes, s, lane)}; }
  };
  struct OfBytes {
    float s, scale;
    __device__ OfBytes from(int lane) const {
      return {__shfl_sync(kAllLanes, s, lane), __shfl_sync(kAllLanes, scale, lane)};
    }
  };
  using OfRow = std::conditional_t<kInBytes<T>, OfBytes, OfFloats>;

  __device__ float score_of(int query, float dot, const OfRow& row) const {
    if constexpr (kInBytes<T>) dot = __fmul_rn(dot, row.scale);
    return fmaf(query_scale<T>(p_, rows_ + query * row_stride_), dot, row.s);
  }

  // Whether there are rows to read: a table may have none.
  __device__ bool has_rows() const {
    const Behaviours& b = p_.behaviours;
    bool some = !b.ids || p_.table_rows > 0;
#pragma unroll 1
    for (int f = 0; f < b.feature_count; ++f) {
      some = some && (!b.features[f].ids || b.features[f].table_rows > 0);
    }
    return some;
  }

  // Adds the products of all columns of a pass.
  __device__ void add_rows(int pass, unsigned first, unsigned end, Sums& sums) const {
    Pieces pieces;
    Rows::find_rows(pass, first, end, pieces);
    int at = 0;
    add_products(pieces, static_cast<int>(p_.behaviours.dim), at, sums);
#pragma unroll 1
    for (int f = 0; f < p_.behaviours.feature_count; ++f) {
      const Feature& feature = p_.behaviours.features[f];
      Rows::find_feature_rows(feature, pass, first, end, pieces);
      add_products(pieces, static_cast<int>(feature.dim), at, sums);
    }
  }

  // Adds the products of rows of `dim` columns with the queries' from `at` on, which moves past
  // them.
  __device__ void add_products(Pieces& pieces, int dim, int& at, Sums& sums) const {
    int left = dim - lane_index() % kRowLanes * kPiece;
#pragma unroll 1
    for (int d = 0; d < dim; d += 2 * kStep, left -= 2 * kStep) {
      Keys keys, next;
      Rows::template load<false>(pieces, 0, left, keys);
      Rows::template load<false>(pieces, kStep, left - kStep, next);
      multiply(keys, at + d, sums);
      if (d + kStep < dim) multiply(next, at + d + kStep, sums);
#pragma unroll
      for (int j = 0; j < kFewGroups; ++j) pieces[j] += 2 * kStep;
    }
    at += step_bytes(dim, sizeof(T)) / static_cast<int>(sizeof(T));
  }

  // Adds the products of a step, whose columns begin at column `at` of the queries.
  __device__ void multiply(const Keys& keys, int at, Sums& sums) const {
    if constexpr (kInBytes<T>) {
      multiply_bytes(keys, at + lane_index() % kRowLanes * kPiece, sums);
    } else if constexpr (kHasMma<T>) {
      multiply_by_tensor_cores(keys, at + lane_index() % 4 * kPiece, sums);
    } else {
      multiply_plainly(keys, at + lane_index() % kRowLanes * kPiece, sums);
    }
  }

  __device__ uint4 query_words(int query, int at) const {
    return *reinterpret_cast<const uint4*>(rows_ + query * row_stride_ + at);
  }

  __device__ void multiply_by_tensor_cores(const Keys& keys, int at, TensorSums& sums) const {
    // Rows of A that no query has are those of another: their products are not used.
    const int low = min(lane_index() / 4, queries_ - 1),
              high = min(lane_index() / 4 + 8, queries_ - 1);
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const uint4 a = query_words(low, at + half * 4 * kPiece);
      const uint4 b = query_words(high, at + half * 4 * kPiece);
#pragma unroll
      for (int j = 0; j < kFewGroups; ++j) {
        mma_16x8x16<T>(sums[j][half][0], a.x, b.x, a.z, b.z, keys[j].x, keys[j].z);
        mma_16x8x16<T>(sums[j][half][1], a.y, b.y, a.w, b.w, keys[j].y, keys[j].w);
      }
    }
  }

  __device__ void multiply_plainly(const Keys& keys, int at, PlainSums& sums) const {
    float values[kFewGroups][kPiece];
#pragma unroll
    for (int j = 0; j < kFewGroups; ++j) widen16<T>(keys[j], values[j]);
#pragma unroll
    for (int q = 0; q < kTileQueries; ++q) {
      if (q >= queries_) break;
      float query[kPiece];
      widen16<T>(query_words(q, at), query);
#pragma unroll
      for (int j = 0; j < kFewGroups; ++j) {
#pragma unroll
        for (int i = 0; i < kPiece; ++i) sums[j][q] = fmaf(values[j][i], query[i], sums[j][q]);
      }
    }
  }

  // A piece of a row in bytes with as many of each query's elements, four at a time where these are
  // floats.
  __device__ void multiply_bytes(const Keys& keys, int at, PlainSums& sums) const {
    if constexpr (kIsInt8Query<T>) {
#pragma unroll
      for (int q = 0; q < kTileQueries; ++q) {
        if (q >= queries_) break;
        const uint4 query = query_words(q, at);
#pragma unroll
        for (int j = 0; j < kFewGroups; ++j) sums[j][q] = add_bytes(keys[j], query, sums[j][q]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int place = byte_query_place(at + 4 * i);
        float values[kFewGroups][4];
#pragma unroll
        for (int j = 0; j < kFewGroups; ++j) widen_bytes<T>(word_of(keys[j], i), values[j]);
#pragma unroll
        for (int q = 0; q < kTileQueries; ++q) {
          if (q >= queries_) break;
          const float4 query = *reinterpret_cast<const float4*>(rows_ + q * row_stride_ + place);
#pragma unroll
          for (int j = 0; j < kFewGroups; ++j) sums[j][q] = add_four(values[j], query, sums[j][q]);
        }
      }
    }
  }

  // Calls f(query, row, dot product, OfRow) for those of a pass that this lane ends with. own: of
  // row lane_index().
  template <class F>
  __device__ void for_each_dot(int pass, const Sums& sums, const F& f, const OfRow& own) const {
    if constexpr (kHasMma<T>) {
      for_each_tensor_dot(pass, sums, f, own);
    } else if constexpr (kRowLanes == 8) {
      for_each_dot_of_lines(pass, sums, f, own);
    } else {
      for_each_dot_of_quads(pass, sums, f, own);
    }
  }

  // A lane of C has two columns of rows lane / 4 and lane / 4 + 8: of halves of one row, or of two
  // rows.
  template <class F>
  __device__ void for_each_tensor_dot(int pass, const TensorSums& sums, const F& f,
                                      const OfRow& own) const {
    constexpr int kColumns = kHalves == 2 ? 1 : 2;  // of results
    const int query = lane_index() / 4;
#pragma unroll
    for (int j = 0; j < kFewGroups; ++j) {
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
        const int row =
            (pass * kFewGroups + j) * Rows::kGroupRows + lane_index() % 4 * kColumns + column;
        const OfRow of_row = own.from(row);
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
          const int c = 2 * upper + column;
          float dot = sums[j][0][0][c] + sums[j][0][1][c];
          if constexpr (kHalves == 2) dot += sums[j][1][0][c + 1] + sums[j][1][1][c + 1];
          if (query + 8 * upper < queries_) f(query + 8 * upper, row, 0.0f + dot, of_row);
        }
      }
    }
  }

  __device__ static float of(SumOf<T> sum) { return static_cast<float>(sum); }
  // Keeps one of two sums, of this lane and the one `mask` away.
  __device__ static float exchange(bool second, float a, float b, int mask) {
    return (second ? b : a) + __shfl_xor_sync(kAllLanes, second ? a : b, mask);
  }

  // Eight lanes a row: each ends with one row, for one of every four queries.
  template <class F>
  __device__ void for_each_dot_of_lines(int pass, const PlainSums& sums, const F& f,
                                        const OfRow& own) const {
    const int lane = lane_index();
    const bool odd = lane % 2 == 1, upper = lane / 2 % 2 == 1, second = lane / 4 % 2 == 1;
    const int row = (pass * kFewGroups + second) * Rows::kGroupRows + lane / 8;
    const OfRow of_row = own.from(row);
    const auto part = [&](int q) { return exchange(second, of(sums[0][q]), of(sums[1][q]), 4); };
#pragma unroll
    for (int q = 0; q < kTileQueries; q += 4) {
      if (q >= queries_) break;
      const float low = exchange(upper, part(q), part(q + 1), 2);
      const float dot = exchange(odd, low, exchange(upper, part(q + 2), part(q + 3), 2), 1);
      const int query = q + 2 * odd + upper;
      if (query < queries_) f(query, row, 0.0f + dot, of_row);
    }
  }

  // Four lanes a row: each ends with one row, for every other query.
  template <class F>
  __device__ void for_each_dot_of_quads(int pass, const PlainSums& sums, const F& f,
                                        const OfRow& own) const {
    const int lane = lane_index();
    const bool odd = lane % 2 == 1, upper = lane / 2 % 2 == 1;
    const int row = (pass * kFewGroups + odd) * Rows::kGroupRows + lane / 4;
    const OfRow of_row = own.from(row);
    const auto part = [&](int q) { return exchange(odd, of(sums[0][q]), of(sums[1][q]), 1); };
#pragma unroll
    for (int q = 0; q < kTileQueries; q += 2) {
      if (q >= queries_) break;
      const float dot = exchange(upper, part(q), part(q + 1), 2);
      if (q + upper < queries_) f(q + upper, row, 0.0f + dot, of_row);
    }
  }

  const SharedTimeTerm& time_;
  const QueryOf<T>* rows_;
  int row_stride_;  // elements
  int queries_;
};

}  // namespace longclock
