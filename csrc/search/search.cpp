// SPDX-License-Identifier: Apache-2.0
#include "search/search.h"

#include <algorithm>

#include "common/parallel.h"
#include "longclock/search/scaled_queries.h"

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
  read_key_scale(op, a);
  if (a.features == nullptr) return;
  features.read(op, kSearchWords, a.keys, a.key_time, *a.features, *a.feature_ids, &behaviours);
  for (const Tensor& table : features.tables) widths.push_back(table.size(1));
}

void SearchInputs::read_dtypes(const char* op, const SearchArguments& a) {
  if (!a.time) {
    behaviours.dtype = DType::kInt64;
    for (const auto& [name, words] : {std::pair("keys", &a.keys), std::pair("query", &a.query)}) {
      check_defined(op, name, *words);
      check(words->scalar_type() == ScalarType::Long, op, ": ", name,
            " must be int64, hashes in words of 64 bits, got ", dtype_of(*words),
            "; pack_signs makes them");
    }
    return;
  }
  if (!a.has_keys_in_bytes()) {
    behaviours.dtype = check_float(op, "keys", a.keys);
    check_matches(op, "query", a.query, "keys", a.keys);
    const bool scaled = a.key_scale != nullptr && *a.key_scale;
    check(!scaled, op, ": key_scale must be None for ", dtype_of(a.keys),
          " keys; rows in bytes have it");
    const bool rounded = a.query_dtype != nullptr && *a.query_dtype;
    check(!rounded, op, ": query_dtype must be None for ", dtype_of(a.keys), " keys, got '",
          rounded ? **a.query_dtype : "", "'; a query is rounded to its keys' dtype");
    return;
  }
  behaviours.dtype = a.keys.scalar_type() == ScalarType::Char ? DType::kInt8 : DType::kFloat8;
  check(a.key_scale->has_value(), op, ": key_scale must be a tensor for ", dtype_of(a.keys),
        " keys, got None; quantize_rows makes both");
  behaviours.query_dtype = check_float(op, "query", a.query);
  if (behaviours.query_dtype == DType::kFloat16) behaviours.query_dtype = DType::kFloat32;
  if (!*a.query_dtype) return;
  const std::string& dtype = **a.query_dtype;
  check(dtype == "float32" || dtype == "bfloat16" || dtype == "int8", op,
        ": query_dtype must be 'float32', 'bfloat16', 'int8' or None, got '", dtype, "'");
  check(dtype != "int8" || behaviours.dtype == DType::kInt8, op,
        ": query_dtype must not be 'int8' for ", dtype_of(a.keys), " keys; take 'bfloat16'");
  behaviours.query_dtype = dtype == "int8"       ? DType::kInt8
                           : dtype == "bfloat16" ? DType::kBFloat16
                                                 : DType::kFloat32;
}

void SearchInputs::read_key_scale(const char* op, const SearchArguments& a) {
  if (!is_byte(behaviours.dtype)) return;
  check(behaviours.query_dtype != DType::kInt8 || widths[0] <= kMaxInt8Dim, op,
        ": query_dtype must not be 'int8' for keys of more than ", kMaxInt8Dim,
        " columns, got D = ", widths[0], "; take 'bfloat16'");
  check(all_of(*a.features).empty(), op, ": keys must be one table where they are ",
        dtype_of(a.keys), ", got ", all_of(*a.features).size() + 1,
        "; widen them, or put the rows side by side");
  const Tensor& given = **a.key_scale;
  check(given.scalar_type() == ScalarType::Float, op, ": key_scale must be float32, got ",
        dtype_of(given), "; convert it with .float()");
  if (ids) {
    check_shape(op, "key_scale", given, {{"N", keys.size(0)}}, "to match keys");
  } else {
    check(same_shape(given, a.key_time), op, ": key_scale must have key_time's shape ",
          shape_of(a.key_time), ", got ", shape_of(given));
  }
  key_scale = as_contiguous(given);
  behaviours.key_scale = static_cast<const float*>(key_scale->const_data_ptr());
  // A row is known by where it lies: no two may lie in one place.
  if (behaviours.key_row_stride < widths[0]) {
    keys = as_contiguous(keys);
    behaviours.keys = keys.const_data_ptr();
    if (dense() && !ids) sequence_stride = keys.stride(0);
  }
  behaviours.key_row_stride = std::max<int64_t>({keys.stride(keys.dim() - 2), widths[0], 1});
}

void SearchInputs::read_rows(const char* op, const SearchArguments& a) {
  read_dtypes(op, a);
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
  check(behaviours.dtype != DType::kFloat8, op,
        ": keys must be int8 or floats of 16 or 32 bits on the CPU, got float8_e4m3fn, which CUDA "
        "alone reads; quantize_rows makes int8");
  const bool int8 = behaviours.dtype == DType::kInt8;
  queries = int8  ? scaled_queries(a)
            : mlp ? padded_rows(a.query, a.keys.scalar_type(), widths)
                  : as_contiguous(a.query);
  query_stride = int8 ? scaled_query_stride(widths[0]) : mlp ? 0 : behaviours.dim;
  for (size_t i = 0; mlp && !int8 && i < widths.size(); ++i) query_stride += padded_dim(widths[i]);
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

Tensor Search::scaled_queries(const SearchArguments& a) const {
  const bool rounded = behaviours.query_dtype == DType::kBFloat16;
  const Tensor rows =
      padded_rows(a.query, rounded ? ScalarType::BFloat16 : ScalarType::Float, {widths[0]});
  Tensor out = make_empty(rows, {query_count, scaled_query_stride(widths[0])});
  const ScaledQueriesParams params{static_cast<const float*>(rows.const_data_ptr()), widths[0],
                                   static_cast<float>(a.time->scale),
                                   behaviours.query_dtype == DType::kInt8,
                                   static_cast<float*>(out.mutable_data_ptr())};
  parallel_tasks(query_count, query_count * widths[0],
                 [&](int64_t begin, int64_t end) { scaled_queries_cpu(params, begin, end); });
  return out;
}

void Search::tabulate() {
  tables_ = find_search_tables(&behaviours.time, time_evaluations(), torch_threads());
}

const std::vector<SearchTask>& Search::cut(bool into_parts, int64_t tile) {
  return SearchWork::cut(into_parts, tile, torch_threads());
}

}  // namespace longclock
