// SPDX-License-Identifier: Apache-2.0
#include "search/layout.h"

#include "common/parallel.h"
#include "longclock/search/group_queries.h"

namespace longclock {
namespace {

// A checked integer tensor, contiguous.
Tensor ints(const char* op, const char* argument, const Tensor& tensor, Dim dim, const char* why) {
  check_int(op, argument, tensor);
  check_shape(op, argument, tensor, {dim}, why);
  return as_contiguous(tensor);
}

}  // namespace

LayoutInputs::LayoutInputs(const char* op, const LayoutArguments& a) : layout(layout_of(op, a)) {
  const bool flat = !dense();
  check_defined(op, "key_time", a.key_time);
  check(!flat || a.key_time.dim() == 1, op,
        ": key_time must have shape [T] for ragged and windows, got ", shape_of(a.key_time),
        "; flatten the sequences into one");
  check(flat || a.key_time.dim() == 2, op, ": key_time must have shape [S, M], got ",
        shape_of(a.key_time), "; for flat sequences give offsets, or starts and ends");
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
  const auto array = [](const std::optional<Tensor>& tensor) {
    return tensor ? int_array(*tensor) : IntArray{};
  };
  return longclock::group_queries(
      op,
      {layout, sequences, positions, query_count, columns, candidates, behaviours.key_row_stride,
       sequence_stride, int_array(query_time), array(lengths), array(offsets), array(starts),
       array(ends), array(query_offsets)},
      torch_threads());
}

}  // namespace longclock
