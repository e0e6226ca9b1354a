// SPDX-License-Identifier: Apache-2.0
// The behaviours that a block of esu_attention works on: where they lie, and their time terms.
#pragma once

#include "longclock/esu_attention/esu_attention_columns.cuh"
#include "longclock/time/time_term.cuh"

namespace longclock {

// What a block works on. Kept in shared memory: the registers are the stream's.
struct EsuPlace {
  int64_t query;
  int64_t first;  // behaviour of the part, in [Q, K]
  int part, group, panel;
};

// Blocks of one part lie side by side: they read the same rows.
__device__ __forceinline__ EsuPlace esu_place(const DeviceEsuAttentionParams& p,
                                              const EsuGeometry& g) {
  unsigned rest = blockIdx.x;
  const unsigned panel = rest % g.panels;
  rest /= g.panels;
  const unsigned group = rest % g.groups;
  rest /= g.groups;
  const int64_t query = g.query_begin + rest / g.parts;
  const int64_t begin = rest % g.parts * kEsuPart;
  return {query, query * p.k + begin, static_cast<int>(rest % g.parts), static_cast<int>(group),
          static_cast<int>(panel)};
}

// Columns [begin, begin + count) of every head are this block's.
struct EsuColumns {
  int begin, count;
};

// The first row of this thread's lanes, and the step to their next.
__device__ __forceinline__ int first_row(const EsuGeometry& g) {
  return kEsuRows * static_cast<int>(threadIdx.x >> g.shift);
}
__device__ __forceinline__ int row_step(const EsuGeometry& g) {
  return (kEsuRows * kEsuThreads) >> g.shift;
}

// How many behaviours the block's part has. Again from the block's index, not from EsuPlace, so
// that the compiler sees that a warp's lanes agree on it.
__device__ __forceinline__ int part_count(const DeviceEsuAttentionParams& p, const EsuGeometry& g) {
  if (g.parts == 1) return static_cast<int>(p.k);
  const unsigned part = blockIdx.x / (g.panels * g.groups) % g.parts;
  return static_cast<int>(min(p.k - part * kEsuPart, kEsuPart));
}

// Where a row of z begins, in elements; or:
constexpr int64_t kInvalidRow = -1;  // masked out or past the end: never read
constexpr int64_t kMissingRow = -2;  // its id is in no table: not read, NaN

// A behaviour of the tile in two words of 16 bytes: its time features, and its row with s. Words of
// one kind lie together, so that lanes that read different rows use different banks. Where rows
// have features, also the address of its row in each table, none where there is nothing to read.
struct EsuTile {
  float4* phi;  // of the first clock
  int4* row;
  const void** table_rows;  // [tables, table_stride]
  int table_stride;
};

// Between the addresses of a tile in one table and in the next: lanes that read the same behaviour
// in several tables use different banks.
LONGCLOCK_INLINE constexpr int esu_table_stride(int tile) { return tile + 1; }

// Shared memory for the addresses of a tile, in words of 16 bytes.
LONGCLOCK_INLINE constexpr int64_t esu_table_words(int features, int tile) {
  return features == 0 ? 0 : ((features + 1) * esu_table_stride(tile) + 1) / 2;
}

struct EsuRow {
  int64_t begin;
  float s;
};
__device__ __forceinline__ EsuRow esu_row(const int4& word) {
  return {static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(word.y)) << 32 |
                               static_cast<uint32_t>(word.x)),
          __int_as_float(word.z)};
}

// Whether entry `entry` of [Q, K] is a behaviour that counts. One read, of whichever tells.
__device__ __forceinline__ bool is_valid(const DeviceEsuAttentionParams& p, int64_t entry) {
  if (p.positions != nullptr) {
    return static_cast<uint64_t>(p.positions[entry]) < static_cast<uint64_t>(p.behaviour_count);
  }
  return p.behaviours.mask == nullptr || p.behaviours.mask[entry] != 0;
}

// What the threads of a block share of the time: s(), and the query's moment.
struct EsuTime {
  SharedTimeTerm term;
  int64_t query_time;
};

// By all threads; the caller puts a barrier behind it.
__device__ __forceinline__ void load_time(const DeviceEsuAttentionParams& p, const EsuGeometry& g,
                                          int64_t query, EsuTime* time) {
  const TimeTerm& term = p.behaviours.time;
  if (threadIdx.x == 0) {
    time->query_time = p.query_time[query];
    read_query_clocks<true>(g.clocks, term.clocks, time->query_time, &time->term);
  }
  load_time_mlps(term.clock[0].mlp, term.clocks, &time->term);
}

// Where behaviour `in_part` of the block's part lies among all, or below 0 where it does not count.
__device__ __forceinline__ int64_t find_position(const DeviceEsuAttentionParams& p,
                                                 const EsuPlace& place, int in_part, int count) {
  const int64_t entry = place.first + in_part;
  if (p.check && p.positions != nullptr && in_part < count) {
    device_check(p.positions[entry] < p.behaviour_count, "positions must be below T",
                 "esu_attention");
  }
  if (in_part >= count || !is_valid(p, entry)) return -1;
  return p.positions == nullptr ? entry : p.positions[entry];
}

// The sum of s() over the clocks, of a behaviour that counts. see(c, delta, phi) gets what each
// clock sees. kUnroll: as of clock_similarity().
template <int kUnroll, class See>
__device__ __forceinline__ float see_clocks(const DeviceEsuAttentionParams& p, const EsuGeometry& g,
                                            int64_t position, const EsuTime& time, const See& see) {
  const Behaviours& b = p.behaviours;
  float s = 0.0f;
#pragma unroll 1
  for (int c = 0; c < b.time.clocks; ++c) {
    const Clock& clock = g.clocks[c].clock;
    const int32_t delta =
        time_delta<true>(clock, b.key_time[position], time.query_time, time.term.query_clock[c]);
    const TimePhi f = time_phi(delta, g.clocks[c].per_unit, clock.period == kElapsed);
    see(c, delta, make_float4(f.x, f.root, f.square, f.log));
    const float of_clock = clock_similarity<kUnroll>(time.term, c, b.time.clock[0].mlp.hidden, f);
    s = c == 0 ? of_clock : s + of_clock;
  }
  return s;
}

// Where its row of z begins, or kMissingRow.
__device__ __forceinline__ int64_t find_row(const DeviceEsuAttentionParams& p,
                                            const EsuPlace& place, int in_part, int64_t position) {
  const Behaviours& b = p.behaviours;
  if (b.ids) {
    const int64_t id = b.ids[position];
    const bool known = id >= 0 && id < p.table_rows;
    if (p.check) device_check(known, "ids must be in [0, N)", "esu_attention");
    return known ? id * b.key_row_stride : kMissingRow;
  }
  if (p.positions != nullptr) return position * b.key_row_stride;
  return place.query * p.z_query_stride + (place.part * kEsuPart + in_part) * b.key_row_stride;
}

// Fills entry i with behaviour `in_part` of the block's part, or with an invalid one past K.
// Returns whether it is valid. see(c, delta, phi) gets what each clock sees, zeros where it is not.
template <class See>
__device__ __forceinline__ bool read_behaviour(const DeviceEsuAttentionParams& p,
                                               const EsuGeometry& g, const EsuPlace& place,
                                               int in_part, int count, const EsuTime& time,
                                               const EsuTile& tile, int i, const See& see) {
  const int64_t position = find_position(p, place, in_part, count);
  if (position < 0) {
    tile.phi[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    tile.row[i] = make_int4(-1, -1, 0, 0);
#pragma unroll 1
    for (int c = 0; c < p.behaviours.time.clocks; ++c) see(c, 0, zero4());
    return false;
  }
  float s = see_clocks<1>(p, g, position, time, [&](int c, int32_t delta, const float4& phi) {
    see(c, delta, phi);
    if (c == 0) tile.phi[i] = phi;
  });
  const int64_t begin = find_row(p, place, in_part, position);
  if (begin == kMissingRow) s = __int_as_float(0x7fc00000);  // NaN
  tile.row[i] =
      make_int4(static_cast<int>(begin), static_cast<int>(begin >> 32), __float_as_int(s), 0);
  return true;
}

// The row of feature f of the behaviour at a position, below 0 where its id is in no table.
__device__ __forceinline__ int64_t find_feature(const DeviceEsuAttentionParams& p,
                                                const Feature& feature, int64_t position) {
  if (!feature.ids) return position;
  const int64_t row = feature.ids[position];
  const bool known = row >= 0 && row < feature.table_rows;
  if (p.check) device_check(known, "ids must be in [0, N)", "esu_attention");
  return known ? row : -1;
}

// Fills the addresses of entry i, which read_behaviour() has filled, by the same thread. Where an
// id is in no table, the whole row is missing.
template <class T>
__device__ __forceinline__ void find_table_rows(const DeviceEsuAttentionParams& p,
                                                const EsuPlace& place, int in_part,
                                                const EsuTile& tile, int i) {
  const Behaviours& b = p.behaviours;
  const int64_t begin = esu_row(tile.row[i]).begin, entry = place.first + in_part;
  const bool valid = begin != kInvalidRow;
  const int64_t position = valid && p.positions != nullptr ? p.positions[entry] : entry;
  bool known = begin >= 0;
  tile.table_rows[i] = known ? static_cast<const T*>(b.keys) + begin : nullptr;
#pragma unroll 1
  for (int f = 0; f < b.feature_count; ++f) {
    const Feature& feature = b.features[f];
    const int64_t row = valid ? find_feature(p, feature, position) : -1;
    known = known && row >= 0;
    tile.table_rows[(f + 1) * tile.table_stride + i] =
        row < 0 ? nullptr : static_cast<const T*>(feature.keys) + row * feature.row_stride;
  }
  if (!valid || known) return;
  tile.row[i] = make_int4(static_cast<int>(kMissingRow), -1, 0x7fc00000, 0);  // s is NaN
}

}  // namespace longclock
