// SPDX-License-Identifier: Apache-2.0
#include "search/search.h"

#include <algorithm>

#include "common/parallel.h"
#include "longclock/common/range.h"

namespace longclock {
namespace {

// Behaviours, times queries, that are worth a part of a sequence, and the least that a part has.
constexpr int64_t kMinScores = 16384;
constexpr int64_t kMinBehaviours = 2048;

std::vector<int64_t> int_values(const Tensor& tensor) {
  const IntArray from = int_array(tensor);
  std::vector<int64_t> values(static_cast<size_t>(tensor.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = from[static_cast<int64_t>(i)];
  return values;
}

// Offsets [S + 1] that run from 0 to `total` and never fall.
std::vector<int64_t> offset_values(const char* op, const char* argument, const Tensor& tensor,
                                   const char* total_name, int64_t total) {
  const auto values = int_values(tensor);
  check(values.front() == 0, op, ": ", argument, " must start at 0, got ", values.front());
  for (size_t s = 0; s + 1 < values.size(); ++s) {
    check(values[s] <= values[s + 1], op, ": ", argument, " must not decrease, got ", values[s],
          " then ", values[s + 1], " at ", s + 1);
  }
  check(values.back() == total, op, ": ", argument, " must end at ", total_name, " = ", total,
        ", got ", values.back());
  return values;
}

// A checked integer tensor, contiguous.
Tensor ints(const char* op, const char* argument, const Tensor& tensor, Dim dim, const char* why) {
  check_int(op, argument, tensor);
  check_shape(op, argument, tensor, {dim}, why);
  return as_contiguous(tensor);
}

// Keys, or a table, with rows that a kernel can walk.
Tensor unit_stride(const Tensor& keys) {
  const int64_t last = keys.dim() - 1;
  return keys.stride(last) == 1 || keys.size(last) <= 1 ? keys : as_contiguous(keys);
}

}  // namespace

SearchInputs::SearchInputs(const char* op, const SearchArguments& a) {
  if (a.time) mlp.emplace(op, a.time->w1, a.time->b1, a.time->w2, a.time->b2, a.time->unit);
  layout = a.starts    ? SearchLayout::kWindows
           : a.offsets ? SearchLayout::kRagged
                       : SearchLayout::kDense;
  check_combination(op, a);
  read_rows(op, a);
  switch (layout) {
    case SearchLayout::kDense:
      read_dense(op, a);
      break;
    case SearchLayout::kRagged:
      read_ragged(op, a);
      break;
    case SearchLayout::kWindows:
      read_windows(op, a);
      break;
  }
  if (a.mask) {
    check(a.mask->scalar_type() == ScalarType::Bool && same_shape(*a.mask, a.key_time), op,
          ": mask must be bool of key_time's shape ", shape_of(a.key_time), ", got ",
          dtype_of(*a.mask), " ", shape_of(*a.mask));
    mask = as_contiguous(*a.mask);
    behaviours.mask = static_cast<const uint8_t*>(mask->const_data_ptr());
  }
  if (a.ids) {
    check_int(op, "ids", *a.ids);
    check(same_shape(*a.ids, a.key_time), op, ": ids must have key_time's shape ",
          shape_of(a.key_time), ", got ", shape_of(*a.ids));
    ids = as_contiguous(*a.ids);
    behaviours.ids = int_array(*ids);
  }
}

// Which arguments go together: they tell the layout.
void SearchInputs::check_combination(const char* op, const SearchArguments& a) const {
  const char* const given = a.starts ? "starts" : "ends";
  const char* const other = a.starts ? "ends" : "starts";
  check(a.starts.has_value() == a.ends.has_value(), op, ": ", given, " must come with ", other,
        " (windows), got ", other, "=None");
  check(!(a.starts && a.offsets), op,
        ": starts must not be given with offsets; windows take starts and ends, ragged takes "
        "offsets");
  check(a.offsets || !a.query_offsets, op,
        ": query_offsets must come with offsets (ragged), got offsets=None");
  check(dense() || !a.lengths, op,
        ": lengths must be None for ragged and windows; it belongs to the dense layout");
  check_defined(op, "key_time", a.key_time);
  check(dense() || a.key_time.dim() == 1, op,
        ": key_time must have shape [T] for ragged and windows, got ", shape_of(a.key_time),
        "; flatten the sequences into one");
  check(!dense() || a.key_time.dim() == 2, op, ": key_time must have shape [S, M], got ",
        shape_of(a.key_time), "; for flat sequences give offsets, or starts and ends");
}

void SearchInputs::read_rows(const char* op, const SearchArguments& a) {
  if (a.time) {
    behaviours.dtype = check_float(op, "keys", a.keys);
    check_matches(op, "query", a.query, "keys", a.keys);
  } else {
    behaviours.dtype = DType::kInt64;
    for (const auto& [name, words] : {std::pair("keys", &a.keys), std::pair("query", &a.query)}) {
      check_defined(op, name, *words);
      check(words->scalar_type() == ScalarType::Long, op, ": ", name,
            " must be int64, hashes in words of 64 bits, got ", dtype_of(*words),
            "; pack_signs makes them");
    }
  }
  check_int(op, "key_time", a.key_time);
  check_int(op, "query_time", a.query_time);
  if (a.time) check_period(op, a.time->period);
  const int64_t key_dims = a.ids ? 2 : dense() ? 3 : 2;
  check(a.keys.dim() == key_dims, op, ": keys must have shape ",
        a.ids     ? "[N, D] with ids"
        : dense() ? "[S, M, D] for dense histories"
                  : "[T, D] with offsets, or starts and ends",
        ", got ", shape_of(a.keys), dense() ? "; for [T, D] pass offsets, or starts and ends" : "");
  const int64_t dim = a.keys.size(key_dims - 1);
  check(a.query.dim() == 2 || (dense() && a.query.dim() == 3), op, ": query must have shape ",
        dense() ? "[S, D] or [S, C, D]" : "[Q, D]", ", got ", shape_of(a.query));
  check(a.query.size(a.query.dim() - 1) == dim, op, ": query must have D = ", dim,
        " in its last dimension to match keys, got ", shape_of(a.query));
  check(a.query_time.dim() == 1, op, ": query_time must have shape ", a.starts ? "[Q]" : "[S]",
        ", got ", shape_of(a.query_time));

  keys = unit_stride(a.keys);
  key_time = as_contiguous(a.key_time);
  query_time = as_contiguous(a.query_time);
  behaviours.keys = keys.const_data_ptr();
  behaviours.key_row_stride = keys.stride(key_dims - 2);
  behaviours.dim = dim;
  behaviours.key_time = int_array(key_time);
  behaviours.mask = nullptr;
  behaviours.exclude_future = a.exclude_future;
  behaviours.period = a.time ? a.time->period : 1;
  behaviours.mlp = mlp ? mlp->mlp : TimeMlp{};
  behaviours.time_table = nullptr;
  query_shape.assign(a.query.sizes().begin(), a.query.sizes().end() - 1);
  query_count = 1;
  for (int64_t size : query_shape) query_count *= size;
}

void SearchInputs::read_dense(const char* op, const SearchArguments& a) {
  sequences = a.ids ? a.key_time.size(0) : a.keys.size(0);
  columns = a.ids ? a.key_time.size(1) : a.keys.size(1);
  check_shape(op, "key_time", a.key_time, {{"S", sequences}, {"M", columns}}, "to match keys");
  check_shape(op, "query_time", a.query_time, {{"S", sequences}},
              a.ids ? "to match key_time" : "to match keys");
  check(a.query.size(0) == sequences, op, ": query must have S = ", sequences,
        " in its first dimension to match ", a.ids ? "key_time" : "keys", ", got ",
        shape_of(a.query));
  check_count(op, "M", columns);
  candidates = a.query.dim() == 3 ? a.query.size(1) : 1;
  if (a.lengths) lengths = ints(op, "lengths", *a.lengths, {"S", sequences}, "to match keys");
  positions = sequences * columns;
}

void SearchInputs::read_ragged(const char* op, const SearchArguments& a) {
  constexpr const char* why = "to match query_time [S]";
  sequences = a.query_time.size(0);
  check_shape(op, "key_time", a.key_time, {{"T", a.ids ? a.key_time.numel() : a.keys.size(0)}},
              a.ids ? "with offsets" : "to match keys");
  positions = a.key_time.size(0);
  offsets = ints(op, "offsets", *a.offsets, {"S + 1", sequences + 1}, why);
  if (a.query_offsets) {
    query_offsets = ints(op, "query_offsets", *a.query_offsets, {"S + 1", sequences + 1}, why);
  } else {
    check_shape(op, "query_time", a.query_time, {{"S", query_count}},
                "to match query, one a sequence; pass query_offsets for more");
  }
}

void SearchInputs::read_windows(const char* op, const SearchArguments& a) {
  sequences = query_count;
  check_shape(op, "query_time", a.query_time, {{"Q", query_count}}, "to match query");
  check_shape(op, "key_time", a.key_time, {{"T", a.ids ? a.key_time.numel() : a.keys.size(0)}},
              a.ids ? "with starts and ends" : "to match keys");
  positions = a.key_time.size(0);
  starts = ints(op, "starts", *a.starts, {"Q", query_count}, "to match query");
  ends = ints(op, "ends", *a.ends, {"Q", query_count}, "to match query");
}

Search::Search(const char* op, const SearchArguments& a) : SearchInputs(op, a) {
  queries = mlp ? padded_rows(a.query, a.keys.scalar_type()) : as_contiguous(a.query);
  query_stride = mlp ? padded_dim(behaviours.dim) : behaviours.dim;
  switch (layout) {
    case SearchLayout::kDense:
      group_dense(op);
      break;
    case SearchLayout::kRagged:
      group_ragged(op);
      break;
    case SearchLayout::kWindows:
      group_windows(op);
      break;
  }
  evaluations = 0;
  for (const Group& group : groups) evaluations += group.length;
  check_seconds(op, "query_time", query_time);
  if (ids) check_ids(op, table_rows());
}

void Search::group_dense(const char* op) {
  const int64_t m = columns;
  const auto times = int_values(query_time);
  const auto counts =
      lengths ? int_values(*lengths) : std::vector<int64_t>(static_cast<size_t>(sequences), m);
  for (int64_t s = 0; s < sequences; ++s) {
    check(counts[s] >= 0 && counts[s] <= m, op, ": lengths must be from 0 to M = ", m, ", got ",
          counts[s], " at ", s);
    groups.push_back({s * candidates, (s + 1) * candidates, times[s], s * m,
                      ids ? 0 : s * keys.stride(0), counts[s], s * candidates * m, m});
  }
  score_count = query_count * m;
}

void Search::group_ragged(const char* op) {
  const auto bounds = offset_values(op, "offsets", *offsets, "T", positions);
  std::vector<int64_t> firsts;
  if (query_offsets) {
    firsts = offset_values(op, "query_offsets", *query_offsets, "Q", query_count);
  }
  const auto times = int_values(query_time);
  score_count = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t length = bounds[s + 1] - bounds[s];
    check_count(op, "a sequence's length", length);
    const int64_t first = query_offsets ? firsts[s] : s;
    const int64_t last = query_offsets ? firsts[s + 1] : s + 1;
    groups.push_back({first, last, times[s], bounds[s], bounds[s] * behaviours.key_row_stride,
                      length, score_count, length});
    score_count += (last - first) * length;
  }
}

void Search::group_windows(const char* op) {
  const auto begin = int_values(*starts), end = int_values(*ends);
  const auto times = int_values(query_time);
  score_count = 0;
  for (int64_t q = 0; q < query_count; ++q) {
    check(begin[q] >= 0 && begin[q] <= end[q] && end[q] <= positions, op,
          ": starts and ends must satisfy 0 <= start <= end <= T = ", positions, ", got ", begin[q],
          " and ", end[q], " at ", q);
    const int64_t length = end[q] - begin[q];
    check_count(op, "a window's length", length);
    groups.push_back({q, q + 1, times[q], begin[q], begin[q] * behaviours.key_row_stride, length,
                      score_count, length});
    score_count += length;
  }
}

void Search::check_ids(const char* op, int64_t table_rows) const {
  parallel_tasks(static_cast<int64_t>(groups.size()), evaluations, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const Group& g = groups[index];
      const int64_t last = g.position + g.length;
      if (all_between_cpu(behaviours.ids, g.position, last, 0, table_rows - 1)) continue;
      for (int64_t at = g.position; at < last; ++at) {
        const int64_t id = behaviours.ids[at];
        if (id >= 0 && id < table_rows) continue;
        check_id(op, !is_valid(behaviours, at, g.query_time), id, table_rows, at);
      }
    }
  });
}

int64_t Search::scores() const {
  int64_t total = 0;
  for (const Group& g : groups) total += g.length * (g.query_end - g.query_begin);
  return total;
}

int64_t Search::work() const { return scores() * (behaviours.dim + 8); }

void Search::tabulate() {
  int64_t times = 0;  // s is computed once a behaviour for each task's queries
  for (const Group& group : groups) {
    times +=
        group.length * ((group.query_end - group.query_begin + kTaskQueries - 1) / kTaskQueries);
  }
  table_ = time_table(mlp->mlp, behaviours.period, times);
  behaviours.time_table = table_.get();
}

const std::vector<SearchTask>& Search::cut(bool into_parts, int64_t tile) {
  tasks_.clear();
  // Queries of a task: as many as pay, but enough tasks for all threads.
  const int64_t threads = worthwhile_threads(work());
  const int64_t fair = (query_count + 2 * threads - 1) / (2 * threads);
  const int64_t task_queries =
      std::clamp((fair + tile - 1) / tile * tile, tile, kTaskQueries / tile * tile);
  // Scores that are a fair task: a longer sequence is cut, so that no thread is left with more than
  // the others. Into few parts where there are many candidates, each of which has parts to merge.
  const bool many = query_count > static_cast<int64_t>(groups.size());
  const int64_t task_work = scores() / (threads == 1 ? 1 : threads * (many ? 2 : 8));
  parts_ = 1;
  for (size_t index = 0; index < groups.size(); ++index) {
    const Group& g = groups[index];
    const int64_t queries = std::max<int64_t>(g.query_end - g.query_begin, 1);
    const int64_t least = std::max(kMinScores / queries, kMinBehaviours);
    const int64_t wanted =
        g.length * std::min(queries, task_queries) / std::max<int64_t>(task_work, 1);
    const int64_t most = std::max<int64_t>(g.length / least, 1);
    const int64_t parts = into_parts ? std::clamp<int64_t>(wanted, 1, most) : 1;
    const int64_t step = (g.length + parts - 1) / parts;
    parts_ = std::max(parts_, parts);
    for (int64_t q = g.query_begin; q < g.query_end; q += task_queries) {
      for (int64_t part = 0; part < parts; ++part) {
        tasks_.push_back({static_cast<int64_t>(index), q, std::min(q + task_queries, g.query_end),
                          std::min(part * step, g.length), std::min((part + 1) * step, g.length),
                          part});
      }
    }
  }
  return tasks_;
}

}  // namespace longclock
