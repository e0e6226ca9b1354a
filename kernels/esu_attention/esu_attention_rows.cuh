// SPDX-License-Identifier: Apache-2.0
// The behaviours that a block of esu_attention works on: where they lie, their time terms, and how
// their rows are read and written.
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
// one kind lie together, so that lanes that read different rows use different banks.
struct EsuTile {
  float4* phi;  // of the first clock
  int4* row;
};

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

// Fills entry i with behaviour `at` of the block's part, or with an invalid one past K. Returns
// whether it is valid. see(c, delta, phi) gets what each clock sees, zeros where it is not.
template <class See>
__device__ __forceinline__ bool read_behaviour(const DeviceEsuAttentionParams& p,
                                               const EsuGeometry& g, const EsuPlace& place,
                                               int in_part, int count, const EsuTime& time,
                                               const EsuTile& tile, int i, const See& see) {
  const Behaviours& b = p.behaviours;
  const int64_t entry = place.first + in_part;
  if (p.check && p.positions != nullptr && in_part < count) {
    device_check(p.positions[entry] < p.behaviour_count, "positions must be below T",
                 "esu_attention");
  }
  if (in_part >= count || !is_valid(p, entry)) {
    tile.phi[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    tile.row[i] = make_int4(-1, -1, 0, 0);
#pragma unroll 1
    for (int c = 0; c < b.time.clocks; ++c) see(c, 0, zero4());
    return false;
  }
  const int64_t position = p.positions == nullptr ? entry : p.positions[entry];
  float s = 0.0f;
#pragma unroll 1
  for (int c = 0; c < b.time.clocks; ++c) {
    const Clock& clock = g.clocks[c].clock;
    const int32_t delta =
        time_delta<true>(clock, b.key_time[position], time.query_time, time.term.query_clock[c]);
    const TimePhi f = time_phi(delta, g.clocks[c].per_unit, clock.period == kElapsed);
    const float4 phi = make_float4(f.x, f.root, f.square, f.log);
    see(c, delta, phi);
    const float of_clock = clock_similarity<1>(time.term, c, b.time.clock[0].mlp.hidden, f);
    s = c == 0 ? of_clock : s + of_clock;
    if (c == 0) tile.phi[i] = phi;
  }
  int64_t begin =
      place.query * p.z_query_stride + (place.part * kEsuPart + in_part) * b.key_row_stride;
  if (b.ids) {
    const int64_t id = b.ids[position];
    const bool known = id >= 0 && id < p.table_rows;
    if (p.check) device_check(known, "ids must be in [0, N)", "esu_attention");
    begin = known ? id * b.key_row_stride : kMissingRow;
    if (!known) s = __int_as_float(0x7fc00000);  // NaN
  } else if (p.positions != nullptr) {
    begin = position * b.key_row_stride;
  }
  tile.row[i] =
      make_int4(static_cast<int>(begin), static_cast<int>(begin >> 32), __float_as_int(s), 0);
  return true;
}

// This lane's columns of two rows, zeros where they must not be read. `at` is the lane's first
// column in a row. By all lanes of a warp.
template <class T, bool kAligned>
__device__ __forceinline__ void load_rows(const Behaviours& b, const int64_t (&begin)[kEsuRows],
                                          int at, int lane, int lanes, float4 (&x)[kEsuRows]) {
  const T* z = static_cast<const T*>(b.keys);
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int row = 0; row < kEsuRows; ++row) {
      x[row] = load_quad<T, kAligned>(z + begin[row], at, begin[row] < 0 ? 0 : b.dim);
    }
  } else {
    const bool upper = lane >= lanes / 2;
    const int64_t own = upper ? begin[1] : begin[0];
    const uint4 bits = load16<T, kAligned>(z + own, upper ? at - 4 : at, own < 0 ? 0 : b.dim);
    const uint2 low = make_uint2(bits.x, bits.y), high = make_uint2(bits.z, bits.w);
    const uint2 kept = select(upper, high, low), sent = select(upper, low, high);
    const uint2 got = make_uint2(__shfl_xor_sync(kAllLanes, sent.x, lanes / 2),
                                 __shfl_xor_sync(kAllLanes, sent.y, lanes / 2));
    x[0] = widen4<T>(select(upper, got, kept));
    x[1] = widen4<T>(select(upper, kept, got));
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
template <class T, bool kAligned, class Y>
__device__ __forceinline__ void add_all_products(const Behaviours& b,
                                                 const int64_t (&begin)[kEsuRows], int lane,
                                                 const EsuGeometry& g, const Y& y,
                                                 float (&sums)[kEsuRows][kEsuHeads]) {
#pragma unroll 1
  for (int panel = 0; panel < g.panels; ++panel) {
    const int at = panel * g.lanes * 4 + lane_column<T>(lane, g.lanes);
    float4 x[kEsuRows];
    load_rows<T, kAligned>(b, begin, at, lane, g.lanes, x);
#pragma unroll
    for (int head = 0; head < kEsuHeads; ++head) {
      const float4 quad = y(head, at);
#pragma unroll
      for (int row = 0; row < kEsuRows; ++row) {
        sums[row][head] = dot4(x[row], quad, sums[row][head]);
      }
    }
  }
}

}  // namespace longclock
