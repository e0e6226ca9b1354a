// SPDX-License-Identifier: Apache-2.0
// Who sees what: the layouts of a search, read on the device.
#pragma once

#include "longclock/common/vector16.cuh"
#include "longclock/common/warp.cuh"
#include "longclock/search/device_search.h"

namespace longclock {

// The behaviours of a sequence or window, and the moment of its queries.
struct SequenceView {
  int64_t position;    // of the first behaviour
  const char* times;   // its time
  const char* keys;    // its row, without ids
  int length;          // behaviours
  int64_t query_time;  // seconds
};

constexpr int64_t kMaxBehaviours = 0x7fffffff;  // of a sequence: what 31 bits index

__device__ __forceinline__ int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return min(max(value, low), high);
}

// Behaviours of sequence or window s.
__device__ __forceinline__ SequenceView view_sequence(const DeviceSearchParams& p, int64_t s) {
  SequenceView view = {};
  if (s >= p.sequences) return view;
  view.query_time = p.query_time[s];
  const auto place = [&](int64_t position) {
    const IntArray& times = p.behaviours.key_time;
    view.position = position;
    view.times = static_cast<const char*>(times.data) + position * (times.is_64 ? 8 : 4);
  };
  if (p.layout == SearchLayout::kDense) {
    place(s * p.columns);
    view.keys = static_cast<const char*>(p.behaviours.keys) + s * p.sequence_bytes;
    view.length = static_cast<int>(p.columns);
    if (p.lengths) {
      const int64_t length = p.lengths[s];
      view.length = static_cast<int>(clamp(length, 0, p.columns));
      if (p.check) device_check(view.length == length, "lengths must be from 0 to M", "search");
    }
    return view;
  }
  const bool windows = p.layout == SearchLayout::kWindows;
  const int64_t begin = windows ? p.starts[s] : p.offsets[s];
  const int64_t end = windows ? p.ends[s] : p.offsets[s + 1];
  place(clamp(begin, 0, p.positions));
  view.length =
      static_cast<int>(min(clamp(end, view.position, p.positions) - view.position, kMaxBehaviours));
  view.keys = static_cast<const char*>(p.behaviours.keys) + view.position * p.row_bytes;
  if (p.check) {
    device_check(begin == view.position && end == view.position + view.length,
                 windows ? "starts and ends must satisfy 0 <= start <= end <= T"
                         : "offsets must run from 0 to T and not decrease",
                 "search");
  }
  return view;
}

// Whether an id is a row of the table.
__device__ __forceinline__ bool is_row(const DeviceSearchParams& p, int64_t id) {
  return id >= 0 && id < p.table_rows;
}

// Row `m` after `rows`. Unsigned, so that the product is one instruction.
__device__ __forceinline__ const char* row_after(const DeviceSearchParams& p, const char* rows,
                                                 unsigned m) {
  return rows + uint64_t{m} * p.row_bytes;
}

// The row of a feature of behaviour m; in row 0 where its id is in no table.
__device__ __forceinline__ const char* feature_row(const Feature& f, int element_size,
                                                   const SequenceView& view, unsigned m) {
  const int64_t position = view.position + m;
  int64_t row = position;
  if (f.ids) {
    row = f.ids[position];
    if (row < 0 || row >= f.table_rows) row = 0;
  }
  return static_cast<const char*>(f.keys) + row * f.row_stride * element_size;
}

// Whether the ids of behaviour m's features are rows of their tables.
__device__ __forceinline__ bool knows_features(const DeviceSearchParams& p,
                                               const SequenceView& view, unsigned m) {
  bool known = true;
#pragma unroll 1
  for (int f = 0; f < p.behaviours.feature_count; ++f) {
    const Feature& feature = p.behaviours.features[f];
    if (!feature.ids) continue;
    const int64_t id = feature.ids[view.position + m];
    known = known && id >= 0 && id < feature.table_rows;
  }
  return known;
}

// The last s of [0, size] with array[s] <= value, or 0: the s whose range of a partition holds it.
template <class Array>
__device__ __forceinline__ int64_t find_range(const Array& array, int64_t size, int64_t value) {
  int64_t low = 0, high = size;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (array[middle] <= value) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// The sequence that query q looks at.
__device__ __forceinline__ int64_t sequence_of(const DeviceSearchParams& p, int64_t q) {
  if (p.layout == SearchLayout::kDense) return p.candidates == 1 ? q : q / p.candidates;
  if (!p.query_offsets) return q;
  const int64_t s = p.sequences == 0 ? 0 : find_range(p.query_offsets, p.sequences - 1, q);
  if (p.check) {
    device_check(s < p.sequences && p.query_offsets[s] <= q && q < p.query_offsets[s + 1],
                 "query_offsets must run from 0 to Q and not decrease", "search");
  }
  return s;
}

struct QueryRange {
  int64_t begin, end;
};

// Where query_offsets, or the layout, say that the queries of sequence s begin.
__device__ __forceinline__ int64_t first_query_of(const DeviceSearchParams& p, int64_t s) {
  if (p.layout == SearchLayout::kDense) return s * p.candidates;
  return p.query_offsets ? p.query_offsets[s] : s;
}

// A sequence, and the queries that look at it.
struct QueryOwner {
  int64_t sequence;
  QueryRange queries;
};

// Finds one of `count` sequences from `first` on, at which `queries` look. behind(s, begin) says
// whether it is s or behind it; begin: the first query of those. Each step halves the sequences,
// and cuts their queries in two where the offset between the halves says, as far as it lies among
// them. So each query has one sequence, that of sequence_of(), whatever values the offsets have,
// and sequences have theirs in order.
template <class Behind>
__device__ __forceinline__ QueryOwner find_owner(const DeviceSearchParams& p, int64_t first,
                                                 int64_t count, QueryRange queries,
                                                 const Behind& behind) {
  for (int64_t last = first + count - 1; first < last;) {
    const int64_t middle = (first + last + 1) / 2;
    const int64_t begin = clamp(first_query_of(p, middle), queries.begin, queries.end);
    if (behind(middle, begin)) {
      first = middle;
      queries.begin = begin;
    } else {
      last = middle - 1;
      queries.end = begin;
    }
  }
  return {first, queries};
}

// The queries that look at sequence s.
__device__ __forceinline__ QueryRange owned_queries(const DeviceSearchParams& p, int64_t s) {
  if (p.layout == SearchLayout::kDense || !p.query_offsets) {
    return {first_query_of(p, s), first_query_of(p, s + 1)};
  }
  return find_owner(p, 0, p.sequences, {0, p.queries},
                    [&](int64_t middle, int64_t) { return middle <= s; })
      .queries;
}

// The same as query_offsets say it, in one step: where they decrease, several sequences may have a
// query. For kernels that write nothing that a query has a place for.
__device__ __forceinline__ QueryRange queries_of(const DeviceSearchParams& p, int64_t s) {
  if (p.layout == SearchLayout::kDense || !p.query_offsets) return owned_queries(p, s);
  const int64_t begin = clamp(p.query_offsets[s], 0, p.queries);
  return {begin, clamp(p.query_offsets[s + 1], begin, p.queries)};
}

// Where the scores of query q, which sees `view`, begin in the result.
__device__ __forceinline__ int64_t scores_of(const DeviceSearchParams& p, int64_t q,
                                             const SequenceView& view) {
  if (p.layout == SearchLayout::kDense) return q * p.columns;
  return p.score_begin == nullptr ? view.position : p.score_begin[q];
}

// The time of behaviour m of a sequence.
__device__ __forceinline__ int64_t time_of(const DeviceSearchParams& p, const SequenceView& view,
                                           unsigned m) {
  return p.behaviours.key_time.is_64 ? reinterpret_cast<const int64_t*>(view.times)[m]
                                     : reinterpret_cast<const int32_t*>(view.times)[m];
}

// Whether it counts at the moment of the view.
__device__ __forceinline__ bool is_valid(const DeviceSearchParams& p, const SequenceView& view,
                                         unsigned m) {
  const Behaviours& b = p.behaviours;
  if (b.mask != nullptr && b.mask[view.position + m] == 0) return false;
  return !b.exclude_future || time_of(p, view, m) < view.query_time;
}

// Elements [d, d + kVector16) of query q, rounded to T; zeros from `dim` on. kAligned: see load16.
template <class T, bool kAligned>
__device__ __forceinline__ uint4 query_piece(const DeviceSearchParams& p, int64_t q, int d,
                                             int64_t dim) {
  if (!p.query_is_float) {
    return load16<T, kAligned>(static_cast<const T*>(p.query) + q * p.query_dim, d, dim);
  }
  const float* query = static_cast<const float*>(p.query) + q * p.query_dim;
  float values[kVector16<T>];
  if constexpr (kAligned) {
#pragma unroll
    for (int i = 0; i < kVector16<T>; i += 4) {
      const uint4 four = load16<float, true>(query, d + i, dim);
      values[i] = __uint_as_float(four.x);
      values[i + 1] = __uint_as_float(four.y);
      values[i + 2] = __uint_as_float(four.z);
      values[i + 3] = __uint_as_float(four.w);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kVector16<T>; ++i) values[i] = d + i < dim ? query[d + i] : 0.0f;
  }
  return narrow16<T>(values);
}

}  // namespace longclock
