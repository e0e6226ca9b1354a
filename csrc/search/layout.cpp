// SPDX-License-Identifier: Apache-2.0
#include "search/layout.h"

namespace longclock {
namespace {

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

// Which arguments go together: they tell the layout.
void check_combination(const char* op, const LayoutArguments& a) {
  const char* const given = a.starts ? "starts" : "ends";
  const char* const other = a.starts ? "ends" : "starts";
  check(a.starts.has_value() == a.ends.has_value(), op, ": ", given, " must come with ", other,
        " (windows), got ", other, "=None");
  check(!(a.starts && a.offsets), op,
        ": starts must not be given with offsets; windows take starts and ends, ragged takes "
        "offsets");
  const bool flat = a.starts || a.offsets;
  check(flat || !a.query_offsets, op,
        ": query_offsets must come with offsets (ragged), or starts and ends (windows), got "
        "neither");
  check(!flat || !a.lengths, op,
        ": lengths must be None for ragged and windows; it belongs to the dense layout");
  check_defined(op, "key_time", a.key_time);
  check(!flat || a.key_time.dim() == 1, op,
        ": key_time must have shape [T] for ragged and windows, got ", shape_of(a.key_time),
        "; flatten the sequences into one");
  check(flat || a.key_time.dim() == 2, op, ": key_time must have shape [S, M], got ",
        shape_of(a.key_time), "; for flat sequences give offsets, or starts and ends");
}

// Whether a window's query is one more candidate of the request before it. As many of them are put
// together as have the bits that each has alone: what is next to a query must not change its
// scores.
bool shared(const Group& before, const Group& next) {
  return before.position == next.position && before.length == next.length &&
         before.query_time == next.query_time &&
         before.query_end - before.query_begin < kFewQueries;
}

}  // namespace

LayoutInputs::LayoutInputs(const char* op, const LayoutArguments& a)
    : layout(a.starts    ? SearchLayout::kWindows
             : a.offsets ? SearchLayout::kRagged
                         : SearchLayout::kDense) {
  check_combination(op, a);
}

void LayoutInputs::read_layout(const char* op, const LayoutArguments& a, const char* name,
                               const Tensor& queries, const std::optional<Rows>& rows) {
  check(a.query_time.dim() == 1, op, ": query_time must have shape ",
        a.starts && !a.query_offsets ? "[Q]" : "[S]", ", got ", shape_of(a.query_time));
  query_shape.assign(queries.sizes().begin(), queries.sizes().end() - 1);
  query_count = 1;
  for (int64_t size : query_shape) query_count *= size;
  if (dense()) {
    read_dense(op, a, name, queries, rows);
  } else {
    read_flat(op, a, name, rows);
  }
  key_time = as_contiguous(a.key_time);
  query_time = as_contiguous(a.query_time);
  behaviours.key_time = int_array(key_time);
  behaviours.exclude_future = a.exclude_future;
  if (!a.mask) return;
  check(a.mask->scalar_type() == ScalarType::Bool && same_shape(*a.mask, a.key_time), op,
        ": mask must be bool of key_time's shape ", shape_of(a.key_time), ", got ",
        dtype_of(*a.mask), " ", shape_of(*a.mask));
  mask = as_contiguous(*a.mask);
  behaviours.mask = static_cast<const uint8_t*>(mask->const_data_ptr());
}

void LayoutInputs::read_dense(const char* op, const LayoutArguments& a, const char* name,
                              const Tensor& queries, const std::optional<Rows>& rows) {
  const char* const like = rows ? "keys" : "key_time";
  const char* const why = rows ? "to match keys" : "to match key_time";
  sequences = rows ? rows->sequences : a.key_time.size(0);
  columns = rows ? rows->columns : a.key_time.size(1);
  check_shape(op, "key_time", a.key_time, {{"S", sequences}, {"M", columns}}, "to match keys");
  check_shape(op, "query_time", a.query_time, {{"S", sequences}}, why);
  check(query_shape[0] == sequences, op, ": ", name, " must have S = ", sequences,
        " in its first dimension to match ", like, ", got ", shape_of(queries));
  check_count(op, "M", columns);
  candidates = query_shape.size() == 2 ? query_shape[1] : 1;
  if (a.lengths) lengths = ints(op, "lengths", *a.lengths, {"S", sequences}, why);
  positions = sequences * columns;
}

void LayoutInputs::read_flat(const char* op, const LayoutArguments& a, const char* name,
                             const std::optional<Rows>& rows) {
  const bool windows = layout == SearchLayout::kWindows, one_each = windows && !a.query_offsets;
  const std::string like_query = std::string("to match ") + name;
  sequences = a.query_time.size(0);
  if (one_each) {
    check_shape(op, "query_time", a.query_time, {{"Q", query_count}}, like_query.c_str());
  }
  if (rows) check_shape(op, "key_time", a.key_time, {{"T", rows->positions}}, "to match keys");
  positions = a.key_time.size(0);
  const char* const why = one_each ? like_query.c_str() : "to match query_time [S]";
  const Dim bound = {one_each ? "Q" : "S", sequences}, edges = {"S + 1", sequences + 1};
  if (windows) {
    starts = ints(op, "starts", *a.starts, bound, why);
    ends = ints(op, "ends", *a.ends, bound, why);
  } else {
    offsets = ints(op, "offsets", *a.offsets, edges, why);
  }
  if (a.query_offsets) {
    query_offsets = ints(op, "query_offsets", *a.query_offsets, edges, why);
  } else if (!windows) {
    check_shape(op, "query_time", a.query_time, {{"S", query_count}},
                (like_query + ", one a sequence; pass query_offsets for more").c_str());
  }
}

std::vector<Group> LayoutInputs::group_queries(const char* op) const {
  check_seconds(op, "query_time", query_time);
  return dense() ? dense_groups(op) : flat_groups(op);
}

std::vector<Group> LayoutInputs::dense_groups(const char* op) const {
  std::vector<Group> groups;
  const int64_t m = columns;
  const auto times = int_values(query_time);
  const auto counts =
      lengths ? int_values(*lengths) : std::vector<int64_t>(static_cast<size_t>(sequences), m);
  for (int64_t s = 0; s < sequences; ++s) {
    check(counts[s] >= 0 && counts[s] <= m, op, ": lengths must be from 0 to M = ", m, ", got ",
          counts[s], " at ", s);
    groups.push_back({s * candidates, (s + 1) * candidates, times[s], s * m, s * sequence_stride,
                      counts[s], s * candidates * m, m});
  }
  return groups;
}

std::vector<Group> LayoutInputs::flat_groups(const char* op) const {
  std::vector<Group> groups;
  const bool windows = layout == SearchLayout::kWindows;
  const auto times = int_values(query_time);
  const auto bounds =
      windows ? std::vector<int64_t>() : offset_values(op, "offsets", *offsets, "T", positions);
  const auto begins = windows ? int_values(*starts) : std::vector<int64_t>();
  const auto behind = windows ? int_values(*ends) : std::vector<int64_t>();
  const auto firsts = query_offsets
                          ? offset_values(op, "query_offsets", *query_offsets, "Q", query_count)
                          : std::vector<int64_t>();
  int64_t scores = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t begin = windows ? begins[s] : bounds[s];
    const int64_t end = windows ? behind[s] : bounds[s + 1];
    check(begin >= 0 && begin <= end && end <= positions, op,
          ": starts and ends must satisfy 0 <= start <= end <= T = ", positions, ", got ", begin,
          " and ", end, " at ", s);
    const int64_t length = end - begin;
    check_count(op, windows ? "a window's length" : "a sequence's length", length);
    const int64_t first = query_offsets ? firsts[s] : s;
    const int64_t last = query_offsets ? firsts[s + 1] : s + 1;
    const Group group{first,  last,   times[s], begin, begin * behaviours.key_row_stride,
                      length, scores, length};
    if (windows && !query_offsets && !groups.empty() && shared(groups.back(), group)) {
      groups.back().query_end = last;
    } else {
      groups.push_back(group);
    }
    scores += (last - first) * length;
  }
  return groups;
}

}  // namespace longclock
