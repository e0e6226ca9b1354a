// SPDX-License-Identifier: Apache-2.0
// How the lanes of a block of esu_attention read and write their columns of rows.
#pragma once

#include "longclock/esu_attention/esu_attention_rows.cuh"

namespace longclock {

// A column of a row: that of a table, or past the end of the last.
struct EsuColumn {
  int table, column, width;
};

__device__ __forceinline__ int table_width(const Behaviours& b, int table) {
  return static_cast<int>(table == 0 ? b.dim : b.features[table - 1].dim);
}

// Goes on to the table that the column lies in.
__device__ __forceinline__ void settle(const Behaviours& b, EsuColumn& at) {
#pragma unroll 1
  while (at.column >= at.width && at.table < b.feature_count) {
    at.column -= at.width;
    at.width = table_width(b, ++at.table);
  }
}

// What a lane reads of each row: `at` is the first column of its quad.
template <EsuForm kForm, bool kFeatures = kHasFeatures<kForm>>
struct EsuPiece {
  int at;
};
// Of aligned rows also where the 16 bytes that it loads lie: behind which addresses of the tile,
// and at which column of that table, below 0 past the end. Others find out as they load.
template <EsuForm kForm>
struct EsuPiece<kForm, true> {
  int at;
  int first_row;
  int column;
};

template <class T, EsuForm kForm>
__device__ __forceinline__ EsuPiece<kForm> piece_of(const DeviceEsuAttentionParams& p,
                                                    int table_stride, int panel, int lane,
                                                    int lanes) {
  EsuPiece<kForm> piece;
  piece.at = panel * lanes * 4 + lane_column<T>(lane, lanes);
  if constexpr (kHasFeatures<kForm>) {
    EsuColumn first = {0, sizeof(T) == 2 && lane >= lanes / 2 ? piece.at - 4 : piece.at,
                       table_width(p.behaviours, 0)};
    piece.column = first.column;
    if constexpr (kIsAligned<kForm>) {
      settle(p.behaviours, first);
      piece.first_row = first.table * table_stride;
      piece.column = first.column < first.width ? first.column : -1;
    }
  }
  return piece;
}

// The 16 bytes of entry `row` of the tile, zeros where they must not be read. Pieces of aligned
// rows lie in one table each.
template <class T, EsuForm kForm>
__device__ __forceinline__ uint4 load_from_tables(const DeviceEsuAttentionParams& p,
                                                  const EsuTile& tile, int row,
                                                  const EsuPiece<kForm>& piece) {
  if constexpr (kIsAligned<kForm>) {
    const T* of_table = static_cast<const T*>(tile.table_rows[piece.first_row + row]);
    return load16<T, true>(of_table, piece.column,
                           of_table == nullptr || piece.column < 0 ? INT64_MIN : INT64_MAX);
  } else {
    uint32_t words[4] = {0, 0, 0, 0};
    EsuColumn at = {0, piece.column, table_width(p.behaviours, 0)};
#pragma unroll
    for (int i = 0; i < kVector16<T>; ++i, ++at.column) {
      settle(p.behaviours, at);
      const T* of_table =
          static_cast<const T*>(tile.table_rows[at.table * tile.table_stride + row]);
      if (of_table == nullptr || at.column >= at.width) continue;
      if constexpr (sizeof(T) == 4) {
        words[i] = __float_as_uint(__ldg(of_table + at.column));
      } else {
        const uint32_t bits = __ldg(reinterpret_cast<const uint16_t*>(of_table) + at.column);
        words[i / 2] |= bits << (i % 2 * 16);
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// What two lanes exchange of the 16 bytes that each has loaded of one of two 16-bit rows.
template <class T>
__device__ __forceinline__ void exchange_halves(const uint4& bits, bool upper, int lanes,
                                                float4 (&x)[kEsuRows]) {
  const uint2 low = make_uint2(bits.x, bits.y), high = make_uint2(bits.z, bits.w);
  const uint2 kept = select(upper, high, low), sent = select(upper, low, high);
  const uint2 got = make_uint2(__shfl_xor_sync(kAllLanes, sent.x, lanes / 2),
                               __shfl_xor_sync(kAllLanes, sent.y, lanes / 2));
  x[0] = widen4<T>(select(upper, got, kept));
  x[1] = widen4<T>(select(upper, kept, got));
}

// This lane's columns of two rows of z that begin at `begin`, zeros where they must not be read.
template <class T, bool kAligned>
__device__ __forceinline__ void load_own_rows(const DeviceEsuAttentionParams& p,
                                              const int64_t (&begin)[kEsuRows], int at, int lane,
                                              int lanes, float4 (&x)[kEsuRows]) {
  const T* z = static_cast<const T*>(p.behaviours.keys);
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int row = 0; row < kEsuRows; ++row) {
      x[row] = load_quad<T, kAligned>(z + begin[row], at, begin[row] < 0 ? 0 : p.dim);
    }
  } else {
    const bool upper = lane >= lanes / 2;
    const int64_t own = upper ? begin[1] : begin[0];
    const uint4 bits = load16<T, kAligned>(z + own, upper ? at - 4 : at, own < 0 ? 0 : p.dim);
    exchange_halves<T>(bits, upper, lanes, x);
  }
}

// This lane's columns of entries `row` and `row + 1` of the tile, zeros where they must not be
// read; `begin` is where they begin in z. By all lanes of a warp.
template <class T, EsuForm kForm>
__device__ __forceinline__ void load_rows(const DeviceEsuAttentionParams& p, const EsuTile& tile,
                                          int row, const int64_t (&begin)[kEsuRows],
                                          const EsuPiece<kForm>& piece, int lane, int lanes,
                                          float4 (&x)[kEsuRows]) {
  if constexpr (!kHasFeatures<kForm>) {
    load_own_rows<T, kIsAligned<kForm>>(p, begin, piece.at, lane, lanes, x);
  } else if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < kEsuRows; ++i) {
      const uint4 bits = load_from_tables<T, kForm>(p, tile, row + i, piece);
      x[i] = make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                         __uint_as_float(bits.w));
    }
  } else {
    const bool upper = lane >= lanes / 2;
    const uint4 bits = load_from_tables<T, kForm>(p, tile, row + (upper ? 1 : 0), piece);
    exchange_halves<T>(bits, upper, lanes, x);
  }
}

// The counterpart: to the first `count` of the two rows of `size` at `to`, one behind the other.
template <class T, bool kAligned>
__device__ __forceinline__ void store_rows(T* to, int count, int at, int64_t size, int lane,
                                           int lanes, const float4 (&x)[kEsuRows]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int row = 0; row < kEsuRows; ++row) {
      const float values[4] = {x[row].x, x[row].y, x[row].z, x[row].w};
      if (row < count) store16<T, kAligned>(to + row * size, at, size, values);
    }
  } else {
    const bool upper = lane >= lanes / 2;
    const uint2 first = narrow4<T>(x[0]), second = narrow4<T>(x[1]);
    const uint2 kept = select(upper, second, first), sent = select(upper, first, second);
    const uint2 got = make_uint2(__shfl_xor_sync(kAllLanes, sent.x, lanes / 2),
                                 __shfl_xor_sync(kAllLanes, sent.y, lanes / 2));
    const uint2 low = select(upper, got, kept), high = select(upper, kept, got);
    if (count <= (upper ? 1 : 0)) return;
    T* row = to + (upper ? size : 0);
    const int begin = upper ? at - 4 : at;
    if constexpr (kAligned) {
      if (begin < size) {
        *reinterpret_cast<uint4*>(row + begin) = make_uint4(low.x, low.y, high.x, high.y);
      }
    } else {
      const uint32_t words[4] = {low.x, low.y, high.x, high.y};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (begin + i < size) row[begin + i] = {static_cast<uint16_t>(words[i / 2] >> i % 2 * 16)};
      }
    }
  }
}

// add_products() over all panels, from global memory: y(head, column) loads a quad.
template <class T, EsuForm kForm, class Y>
__device__ __forceinline__ void add_all_products(const DeviceEsuAttentionParams& p,
                                                 const EsuTile& tile, int tile_row,
                                                 const int64_t (&begin)[kEsuRows], int lane,
                                                 const EsuGeometry& g, const Y& y,
                                                 float (&sums)[kEsuRows][kEsuHeads]) {
#pragma unroll 1
  for (int panel = 0; panel < g.panels; ++panel) {
    const auto piece = piece_of<T, kForm>(p, tile.table_stride, panel, lane, g.lanes);
    float4 x[kEsuRows];
    load_rows<T, kForm>(p, tile, tile_row, begin, piece, lane, g.lanes, x);
#pragma unroll
    for (int head = 0; head < kEsuHeads; ++head) {
      const float4 quad = y(head, piece.at);
#pragma unroll
      for (int row = 0; row < kEsuRows; ++row) {
        sums[row][head] = dot4(x[row], quad, sums[row][head]);
      }
    }
  }
}

}  // namespace longclock
