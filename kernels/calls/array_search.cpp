// SPDX-License-Identifier: Apache-2.0
#include "longclock/calls/array_search.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "longclock/calls/time_table_cache.h"
#include "longclock/clock_gsu/clock_gsu.h"
#include "longclock/common/stream_elements.h"
#include "longclock/common/value_checks.h"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/group_queries.h"
#include "longclock/search/query_rows.h"
#include "longclock/search/topk_tasks.h"
#include "longclock/time/time_arguments.h"

namespace longclock {
namespace {

std::string shape(std::initializer_list<int64_t> sizes) {
  return bracketed(sizes.begin(), sizes.size());
}

const char* name(DType dtype) {
  return dtype == DType::kFloat16 ? "float16" : dtype == DType::kBFloat16 ? "bfloat16" : "float32";
}

// "features[1].keys"
std::string feature_name(const char* array, int f) {
  return "features[" + std::to_string(f) + "]." + array;
}

void check_size(const char* op, const char* argument, int64_t got, Dim dim, const char* why) {
  check_shape(op, argument, &got, 1, {dim}, why);
}

void check_rows(const char* op, const char* argument, const RowSpan& rows) {
  check(rows.dtype != DType::kInt64, op, ": ", argument,
        " must be float32, float16 or bfloat16, got int64");
  check(rows.rows >= 0 && rows.dim >= 0, op, ": ", argument, " must have no negative size, got ",
        shape({rows.rows, rows.dim}));
  check(rows.data != nullptr || rows.rows == 0 || rows.dim == 0, op, ": ", argument,
        " must point to its rows, ", shape({rows.rows, rows.dim}), ", got a null pointer");
}

// How many of `total` there are of each sequence.
int64_t share_of(const char* op, const char* argument, const char* letters, int64_t total,
                 int64_t sequences, const char* remedy) {
  check(sequences == 0 ? total == 0 : total % sequences == 0, op, ": ", argument, " must have ",
        letters, ", a multiple of S = ", sequences, ", got ", total, remedy);
  return sequences == 0 ? 0 : total / sequences;
}

TimeTerm time_term(const char* op, const ArrayTimeTerm& a) {
  TimeTerm time{};
  read_clocks(op, a.periods, a.units, &time);
  const auto clocks = static_cast<size_t>(time.clocks);
  const size_t hidden = a.b1.size() / clocks;
  check(hidden >= 1 && hidden <= kMaxTimeHidden / clocks && a.b1.size() == clocks * hidden, op,
        ": mlp b1 must have C h elements, with C = ", clocks, " clocks and h from 1 to ",
        kMaxTimeHidden / clocks, ", got ", a.b1.size());
  const auto check_weights = [&](const char* name, std::span<const float> weights, size_t size) {
    check(weights.size() == size, op, ": mlp ", name, " must have ", size,
          " elements to match b1, got ", weights.size());
  };
  check_weights("w1", a.w1, clocks * hidden * kTimeFeatures);
  check_weights("w2", a.w2, clocks * hidden);
  check_weights("b2", a.b2, clocks);
  read_parameters(a.w1.data(), a.b1.data(), a.w2.data(), a.b2.data(), static_cast<int>(hidden),
                  &time);
  return time;
}

// The arguments but for ids' values, checked and brought to the form that kernels take.
class ArrayInputs {
 public:
  ArrayInputs(const char* op, const ArraySearch& arguments)
      : a_(arguments), op_(op), sequences_(read_sequences()), behaviours_(read_behaviours()) {}

  SearchWork group(const Threads& threads) const {
    return {group_queries(op_, sequences_, threads), sequences_.queries, full_width(behaviours_)};
  }
  int64_t score_count(const SearchWork& work) const {
    return a_.offsets || a_.starts ? work.scores() : sequences_.queries * sequences_.columns;
  }

  const Behaviours& behaviours() const { return behaviours_; }
  int64_t queries() const { return sequences_.queries; }
  // That ids are rows of their tables.
  void check_rows_of_ids(const SearchWork& work, const Threads& threads) const;
  float scale() const {
    const int64_t dim = std::max<int64_t>(a_.query.dim, 1);
    return static_cast<float>(a_.scale.value_or(1.0 / std::sqrt(static_cast<double>(dim))));
  }

 private:
  SequenceArrays read_sequences() const;
  void read_flat(SequenceArrays* s) const;
  Behaviours read_behaviours() const;
  void read_features(Behaviours* b) const;
  void check_ids_size(const char* argument, const IntSpan& ids) const;

  const ArraySearch& a_;
  const char* op_;
  SequenceArrays sequences_;
  Behaviours behaviours_;
};

SequenceArrays ArrayInputs::read_sequences() const {
  const ArraySearch& a = a_;
  check_rows(op_, "query", a.query);
  check_rows(op_, "keys", a.keys);
  SequenceArrays s{};
  s.layout = layout_of(op_, a);
  s.sequences = a.query_time.size();
  s.positions = a.key_time.size();
  s.queries = a.query.rows;
  s.query_time = a.query_time.ints();
  if (s.layout != SearchLayout::kDense) {
    read_flat(&s);
  } else {
    s.columns = share_of(op_, "key_time", "S M elements", s.positions, s.sequences,
                         "; for flat sequences give offsets, or starts and ends");
    s.candidates = share_of(op_, "query", "S C rows", s.queries, s.sequences, "");
    check_count(op_, "M", s.columns);
    if (a.lengths) {
      check_size(op_, "lengths", a.lengths.size(), {"S", s.sequences}, "to match query_time");
    }
    s.lengths = a.lengths.ints();
  }
  if (!a.ids) {
    check_size(op_, "key_time", s.positions, {"T", a.keys.rows},
               "to match keys, for there are no ids");
    s.row_stride = a.keys.stride;
    s.sequence_stride = s.columns * a.keys.stride;
  }
  return s;
}

void ArrayInputs::read_flat(SequenceArrays* s) const {
  const ArraySearch& a = a_;
  const Dim each = {"S", s->sequences}, edges = {"S + 1", s->sequences + 1};
  const char* const why = "to match query_time [S]";
  if (s->layout == SearchLayout::kWindows) {
    check_size(op_, "starts", a.starts.size(), each, why);
    check_size(op_, "ends", a.ends.size(), each, why);
  } else {
    check_size(op_, "offsets", a.offsets.size(), edges, why);
  }
  if (a.query_offsets) {
    check_size(op_, "query_offsets", a.query_offsets.size(), edges, why);
  } else {
    check_size(op_, "query_time", s->sequences, {"S", s->queries},
               "to match query, one a sequence; pass query_offsets for more");
  }
  s->offsets = a.offsets.ints();
  s->starts = a.starts.ints();
  s->ends = a.ends.ints();
  s->query_offsets = a.query_offsets.ints();
}

Behaviours ArrayInputs::read_behaviours() const {
  const ArraySearch& a = a_;
  check_ids_size("ids", a.ids);
  const int64_t positions = a.key_time.size();
  check(a.mask.empty() || static_cast<int64_t>(a.mask.size()) == positions, op_,
        ": mask must have key_time's shape ", shape({positions}), ", got ",
        shape({static_cast<int64_t>(a.mask.size())}));
  Behaviours b{};
  b.dtype = a.keys.dtype;
  b.keys = a.keys.data;
  b.key_row_stride = a.keys.stride;
  b.dim = a.keys.dim;
  b.ids = a.ids.ints();
  b.key_time = a.key_time.ints();
  b.mask = a.mask.data();
  b.exclude_future = a.exclude_future;
  b.time = time_term(op_, a.time);
  read_features(&b);
  check(a.query.dim == full_width(b), op_, ": query must have D = ", full_width(b),
        " in its last dimension to match keys, got ", shape({a.query.rows, a.query.dim}));
  check(a.query.dtype == b.dtype || a.query.dtype == DType::kFloat32, op_, ": query must be ",
        b.dtype == DType::kFloat32 ? "" : "float32, or ", name(b.dtype), " to match keys, got ",
        name(a.query.dtype), "; give it as float32");
  return b;
}

void ArrayInputs::read_features(Behaviours* b) const {
  check(a_.features.size() <= kMaxFeatures, op_, ": features must be at most ", kMaxFeatures,
        ", got ", a_.features.size());
  for (const auto& [keys, ids] : a_.features) {
    const std::string rows = feature_name("keys", b->feature_count);
    check_rows(op_, rows.c_str(), keys);
    check(keys.dtype == b->dtype, op_, ": ", rows, " must be ", name(b->dtype),
          " to match keys, got ", name(keys.dtype));
    check(ids || keys.rows == a_.key_time.size(), op_, ": ", rows,
          " must have a row for every behaviour, where it has no ids, got ",
          shape({keys.rows, keys.dim}));
    check_ids_size(feature_name("ids", b->feature_count).c_str(), ids);
    b->features[b->feature_count++] = {keys.data, keys.stride, keys.dim, ids.ints(), keys.rows};
  }
}

void ArrayInputs::check_ids_size(const char* argument, const IntSpan& ids) const {
  const int64_t positions = a_.key_time.size();
  check(!ids || ids.size() == positions, op_, ": ", argument, " must have key_time's shape ",
        shape({positions}), ", got ", shape({ids.size()}));
}

void ArrayInputs::check_rows_of_ids(const SearchWork& work, const Threads& threads) const {
  const Behaviours& b = behaviours_;
  if (b.ids) check_ids(op_, b, work, b.ids, a_.keys.rows, "ids", threads);
  for (int f = 0; f < b.feature_count; ++f) {
    const auto& [keys, row_stride, dim, ids, table_rows] = b.features[f];
    if (ids) check_ids(op_, b, work, ids, table_rows, feature_name("ids", f), threads);
  }
}

// The queries as kernels take them: where they lie, or a copy.
struct ArrayQueries {
  const float* rows;
  int64_t stride;

  ArrayQueries(const RowSpan& query, const Behaviours& b, const Threads& threads)
      : rows(static_cast<const float*>(query.data)), stride(query.stride) {
    std::vector<int64_t> widths{b.dim};
    int64_t padded = padded_dim(b.dim);
    for (int f = 0; f < b.feature_count; ++f) {
      widths.push_back(b.features[f].dim);
      padded += padded_dim(b.features[f].dim);
    }
    const bool exact = query.dtype == DType::kFloat32 && b.dtype == DType::kFloat32;
    if (exact && padded == query.dim && stride % 16 == 0) return;
    copy_ = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(query.rows * padded));
    const QueryRowsParams params{query.dtype, query.data,    query.stride,
                                 b.dtype,     widths.data(), static_cast<int64_t>(widths.size()),
                                 copy_.get(), padded};
    parallel_tasks(threads, query.rows, query.rows * padded,
                   [&](int64_t begin, int64_t end) { query_rows_cpu(params, begin, end); });
    rows = copy_.get();
    stride = padded;
  }

 private:
  std::unique_ptr<float[]> copy_;
};

// Behaviours whose s is looked up where that pays.
struct Tabulated {
  Behaviours behaviours;
  TimeTables tables;

  Tabulated(const Behaviours& given, const SearchWork& work, const Threads& threads)
      : behaviours(given),
        tables(find_search_tables(&behaviours.time, work.time_evaluations(), threads)) {}
};

// An output must have `count` elements, said in letters as well.
template <class T>
void check_output(const char* op, const char* argument, std::span<T> out, const char* letters,
                  int64_t count) {
  check(static_cast<int64_t>(out.size()) == count, op, ": ", argument, " must have ", letters,
        " = ", count, " elements, got ", out.size());
}

}  // namespace

void search(const ArraySearch& arguments, int64_t k, std::span<float> scores,
            std::span<int64_t> indices, const Threads& threads) {
  constexpr const char* op = "search";
  check_k(op, k);
  const ArrayInputs in(op, arguments);
  check_output(op, "scores", scores, "Q k", in.queries() * k);
  check_output(op, "indices", indices, "Q k", in.queries() * k);
  SearchWork work = in.group(threads);
  in.check_rows_of_ids(work, threads);
  if (k == 0) return;
  const ArrayQueries queries(arguments.query, in.behaviours(), threads);
  const Tabulated of(in.behaviours(), work, threads);
  DotSearchParams params{};
  params.k = k;
  params.scores = scores.data();
  params.indices = indices.data();
  params.queries = queries.rows;
  params.query_stride = queries.stride;
  params.scale = in.scale();
  search_topk(op, of.behaviours, work, in.queries(), kCandidatePanel, threads, params,
              clock_gsu_cpu);
}

void score(const ArraySearch& arguments, std::span<float> scores, const Threads& threads) {
  constexpr const char* op = "score";
  const ArrayInputs in(op, arguments);
  SearchWork work = in.group(threads);
  check_output(op, "scores", scores, "score_count()", in.score_count(work));
  in.check_rows_of_ids(work, threads);
  const ArrayQueries queries(arguments.query, in.behaviours(), threads);
  const Tabulated of(in.behaviours(), work, threads);
  const std::vector<SearchTask>& tasks = work.cut(/*into_parts=*/true, kQueryTile, threads);
  const GsuScoreParams params{
      of.behaviours,  queries.rows,
      queries.stride, work.groups.data(),
      tasks.data(),   in.scale(),
      scores.data(),  static_cast<int64_t>(scores.size()) > kStreamElements};
  run_tasks(op, of.behaviours, work, tasks, threads,
            [&](int64_t begin, int64_t end) { gsu_score_cpu(params, begin, end); });
}

int64_t score_count(const ArraySearch& arguments) {
  const ArrayInputs in("score_count", arguments);
  return in.score_count(in.group({}));
}

}  // namespace longclock
