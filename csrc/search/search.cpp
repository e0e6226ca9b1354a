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

}  // namespace

SearchInputs::SearchInputs(const char* op, const SearchArguments& a)
    : LayoutInputs(op, a.layout()) {
  if (a.time) {
    const SearchTimeTerm& t = *a.time;
    mlp.emplace(op, t.w1, t.b1, t.w2, t.b2, t.periods, t.units);
  }
  read_rows(op, a);
  if (a.ids) {
    read_layout(op, a.layout(), "query", a.query, std::nullopt);
    check_int(op, "ids", *a.ids);
    check(same_shape(*a.ids, a.key_time), op, ": ids must have key_time's shape ",
          shape_of(a.key_time), ", got ", shape_of(*a.ids));
    ids = as_contiguous(*a.ids);
    behaviours.ids = int_array(*ids);
  } else {
    read_layout(op, a.layout(), "query", a.query, Rows{keys.size(0), keys.size(1), keys.size(0)});
    if (dense()) sequence_stride = keys.stride(0);
  }
  if (a.features == nullptr) return;
  features.read(op, kSearchWords, a.keys, a.key_time, *a.features, *a.feature_ids, &behaviours);
  for (const Tensor& table : features.tables) widths.push_back(table.size(1));
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
  const int64_t key_dims = a.ids ? 2 : dense() ? 3 : 2;
  check(a.keys.dim() == key_dims, op, ": keys must have shape ",
        a.ids     ? "[N, D] with ids"
        : dense() ? "[S, M, D] for dense histories"
                  : "[T, D] with offsets, or starts and ends",
        ", got ", shape_of(a.keys), dense() ? "; for [T, D] pass offsets, or starts and ends" : "");
  widths = {a.keys.size(key_dims - 1)};
  check_query(op, a);
  keys = unit_stride(a.keys);
  behaviours.keys = keys.const_data_ptr();
  behaviours.key_row_stride = keys.stride(key_dims - 2);
  behaviours.dim = widths[0];
  if (mlp) behaviours.time = mlp->time;
}

void SearchInputs::check_query(const char* op, const SearchArguments& a) const {
  const int64_t dim =
      widths[0] + (a.features == nullptr ? 0 : feature_columns(op, kSearchWords, *a.features));
  check(a.query.dim() == 2 || (dense() && a.query.dim() == 3), op, ": query must have shape ",
        dense() ? "[S, D] or [S, C, D]" : "[Q, D]", ", got ", shape_of(a.query));
  check(a.query.size(a.query.dim() - 1) == dim, op, ": query must have D = ", dim,
        " in its last dimension to match keys, got ", shape_of(a.query));
}

Search::Search(const char* op, const SearchArguments& a)
    : SearchInputs(op, a), groups(group_queries(op)) {
  queries = mlp ? padded_rows(a.query, a.keys.scalar_type(), widths) : as_contiguous(a.query);
  query_stride = mlp ? 0 : behaviours.dim;
  for (size_t i = 0; mlp && i < widths.size(); ++i) query_stride += padded_dim(widths[i]);
  score_count = dense() ? query_count * columns : scores();
  evaluations = 0;
  for (const Group& group : groups) evaluations += group.length;
  if (ids) check_ids(op, behaviours.ids, table_rows(), features.tables.empty() ? "ids" : "ids[0]");
  for (int f = 0; f < behaviours.feature_count; ++f) {
    const Feature& feature = behaviours.features[f];
    if (feature.ids) check_ids(op, feature.ids, feature.table_rows, ids_name(f));
  }
}

void Search::check_ids(const char* op, const IntArray& ids, int64_t table_rows,
                       const std::string& argument) const {
  parallel_tasks(static_cast<int64_t>(groups.size()), evaluations, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const Group& g = groups[index];
      const int64_t last = g.position + g.length;
      if (all_between_cpu({ids, 0, table_rows - 1}, g.position, last)) continue;
      for (int64_t at = g.position; at < last; ++at) {
        const int64_t id = ids[at];
        if (id >= 0 && id < table_rows) continue;
        check_id(op, !is_valid(behaviours, at, g.query_time), id, table_rows, at, argument);
      }
    }
  });
}

int64_t Search::scores() const {
  int64_t total = 0;
  for (const Group& g : groups) total += g.length * (g.query_end - g.query_begin);
  return total;
}

int64_t Search::work() const { return scores() * (full_width(behaviours) + 8); }

void Search::tabulate() {
  int64_t times = 0;  // s is computed once a behaviour for each task's queries
  for (const Group& group : groups) {
    times +=
        group.length * ((group.query_end - group.query_begin + kTaskQueries - 1) / kTaskQueries);
  }
  TimeTerm& time = behaviours.time;
  tables_ = find_time_tables(&time, times);
  for (int c = 0; c < time.clocks; ++c) time.clock[c].unread = time.lookups > 0;
  for (int i = 0; i < time.lookups; ++i) time.clock[time.lookup[i].clock].unread = false;
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
