// SPDX-License-Identifier: Apache-2.0
#include "search/search.h"

#include "common/parallel.h"

namespace longclock {

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
    : SearchInputs(op, a), SearchWork(group_queries(op), query_count, full_width(behaviours)) {
  queries = mlp ? padded_rows(a.query, a.keys.scalar_type(), widths) : as_contiguous(a.query);
  query_stride = mlp ? 0 : behaviours.dim;
  for (size_t i = 0; mlp && i < widths.size(); ++i) query_stride += padded_dim(widths[i]);
  score_count = dense() ? query_count * columns : scores();
  const auto check_rows = [&](const IntArray& of, int64_t rows, const std::string& argument) {
    check_ids(op, behaviours, *this, of, rows, argument, torch_threads());
  };
  if (ids) check_rows(behaviours.ids, table_rows(), features.tables.empty() ? "ids" : "ids[0]");
  for (int f = 0; f < behaviours.feature_count; ++f) {
    const Feature& feature = behaviours.features[f];
    if (feature.ids) check_rows(feature.ids, feature.table_rows, ids_name(f));
  }
}

void Search::tabulate() {
  tables_ = find_search_tables(&behaviours.time, time_evaluations(), torch_threads());
}

const std::vector<SearchTask>& Search::cut(bool into_parts, int64_t tile) {
  return SearchWork::cut(into_parts, tile, torch_threads());
}

}  // namespace longclock
