// SPDX-License-Identifier: Apache-2.0
// Searches over plain arrays on the CPU: what a server without PyTorch calls.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "longclock/calls/arrays.h"
#include "longclock/common/threads.h"
#include "longclock/time/clock.h"

namespace longclock {

// s(x) = w2 . relu(w1 phi(x) + b1) + b2 with phi(x) = [x, sqrt(x), x^2, log(x + 1)] and x = delta /
// unit; of C clocks the sum of theirs.
struct ArrayTimeTerm {
  std::span<const float> w1{};          // [C, h, 4], h from 1 to 64 / C
  std::span<const float> b1{};          // [C, h]
  std::span<const float> w2{};          // [C, h]
  std::span<const float> b2{};          // [C]
  std::vector<int64_t> periods{86400};  // [C], seconds; 0 (kElapsed): the time elapsed
  std::vector<double> units{3600.0};    // [C], seconds of one x
};

// Further columns of every behaviour, behind those of its row: a row of another table, or one of
// its own.
struct ArrayFeature {
  RowSpan keys{};  // the table [N, F], or without ids [T, F]; the dtype of the other keys
  IntSpan ids{};   // [T], or none
};

// A search's behaviours and queries. Which arrays are given tells the layout:
//   dense    neither offsets nor starts: S sequences of M behaviours, T = S M, and C queries each,
//            Q = S C; of sequence s the first lengths[s] behaviours count, or all
//   ragged   offsets: sequence s is behaviours offsets[s] to offsets[s + 1] - 1
//   windows  starts and ends: window s is behaviours starts[s] to ends[s] - 1
// In the latter two query s sees sequence or window s, or queries query_offsets[s] to
// query_offsets[s + 1] - 1 do. One user's history is dense with S = 1.
struct ArraySearch {
  RowSpan query{};           // [Q, D and the columns of features], the dtype of keys or float
  RowSpan keys{};            // [T, D]; with ids the table [N, D]
  IntSpan ids{};             // [T], rows of the table; or none
  IntSpan key_time{};        // [T], seconds
  IntSpan query_time{};      // [S], seconds
  IntSpan lengths{};         // [S], or none: dense
  IntSpan offsets{};         // [S + 1]: ragged
  IntSpan query_offsets{};   // [S + 1], or none: ragged and windows
  IntSpan starts{}, ends{};  // [S]: windows
  std::span<const uint8_t> mask{};  // [T], 0: as if the behaviour were not there; or none
  bool exclude_future = false;      // nor is one whose key_time is at or after query_time
  ArrayTimeTerm time{};
  std::optional<double> scale{};             // none: 1 / sqrt(columns of query)
  std::span<const ArrayFeature> features{};  // at most 7
};

// Clock-GSU: the k behaviours that matter most to each query, by
//   score = scale * key . query + s(delta(key_time, query_time) / unit),
// score descending, then index ascending, NaN before every number; 0 <= k <= 2048.
// scores, indices: [Q, k]; indices count from the start of the sequence or window; -inf and -1
// where there are fewer than k.
//
// Bit for bit what clock_gsu of the PyTorch ops gives at the same SIMD level, on any number of
// threads. May be called from any threads at once. Throws std::invalid_argument where an argument
// does not fit, with its name and the remedy, and std::bad_alloc; the outputs are then unspecified.
//
//   std::vector<float> scores(100);
//   std::vector<int64_t> indices(100);
//   longclock::search({.query = {&candidate[0], 1, 64}, .keys = {&keys[0], 10000, 64},
//                      .key_time = times, .query_time = now, .time = {w1, b1, w2, b2}},
//                     100, scores, indices);
void search(const ArraySearch& arguments, int64_t k, std::span<float> scores,
            std::span<int64_t> indices, const Threads& threads = {});

// The score of every behaviour that a query sees, -inf where it is not valid. scores: dense [Q, M],
// -inf past lengths; else queries in order, each with all behaviours of its sequence or window,
// score_count() of them.
void score(const ArraySearch& arguments, std::span<float> scores, const Threads& threads = {});
int64_t score_count(const ArraySearch& arguments);

}  // namespace longclock
