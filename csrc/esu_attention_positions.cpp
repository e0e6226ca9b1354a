// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "esu_attention_call.h"
#include "longclock/common/range.h"

namespace longclock {

EsuPositionsInputs::EsuPositionsInputs(const char* op, const LayoutArguments& a,
                                       const Tensor& found_in)
    : LayoutInputs(op, a) {
  check_int(op, "key_time", a.key_time);
  check_int(op, "query_time", a.query_time);
  check_defined(op, "found", found_in);
  check(found_in.scalar_type() == ScalarType::Long, op, ": found must be int64, got ",
        dtype_of(found_in), "; pass the indices of a search");
  check(found_in.dim() == 2 || (dense() && found_in.dim() == 3), op, ": found must have shape ",
        dense() ? "[S, K] or [S, C, K]" : "[Q, K]", ", got ", shape_of(found_in));
  read_layout(op, a, "found", found_in, std::nullopt);
  found = as_contiguous(found_in);
  k = found.size(found.dim() - 1);
}

namespace {

// Where entry `at` of found lies in it: "[2, 0, 7]".
std::string entry_of(const Tensor& found, int64_t at) {
  std::vector<int64_t> place(static_cast<size_t>(found.dim()));
  for (int64_t d = found.dim() - 1; d >= 0; --d) {
    place[static_cast<size_t>(d)] = at % found.size(d);
    at /= found.size(d);
  }
  return bracketed({place.data(), place.size()});
}

std::tuple<Tensor, Tensor> esu_attention_positions(LONGCLOCK_ESU_LAYOUT(LONGCLOCK_PARAMETER)
                                                       const Tensor& found) {
  constexpr const char* op = "esu_attention";  // what users call
  const EsuPositionsInputs in(op, LONGCLOCK_LAYOUT_ARGUMENTS, found);
  const std::vector<Group> groups = in.group_queries(op);
  const Tensor positions = make_empty(in.found, {in.query_count, in.k}, ScalarType::Long);
  const Tensor times = make_empty(in.found, {in.query_count}, ScalarType::Long);
  const auto* from = static_cast<const int64_t*>(in.found.const_data_ptr());
  auto* to = static_cast<int64_t*>(positions.mutable_data_ptr());
  auto* time = static_cast<int64_t*>(times.mutable_data_ptr());
  const auto count = static_cast<int64_t>(groups.size());
  const bool all_valid = in.behaviours.mask == nullptr && !in.behaviours.exclude_future;
  parallel_tasks(count, 4 * in.query_count * in.k, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const Group& g = groups[s];
      for (int64_t q = g.query_begin; q < g.query_end; ++q) time[q] = g.query_time;
      const int64_t first = g.query_begin * in.k, last = g.query_end * in.k;
      if (all_valid && all_between_cpu({{from, true}, -1, g.length - 1}, first, last)) {
        for (int64_t at = first; at < last; ++at)
          to[at] = from[at] < 0 ? -1 : g.position + from[at];
        continue;
      }
      for (int64_t at = first; at < last; ++at) {
        const int64_t index = from[at];
        if (index < -1 || index >= g.length) {  // only then is the text worth making
          check(false, op,
                ": found must hold indices of each query's own history, counted from its start, or "
                "-1, got ",
                index, " at ", entry_of(in.found, at), "; what other behaviours gave may be stale");
        }
        const int64_t position = g.position + index;
        if (index >= 0 && in.behaviours.exclude_future) {  // which compares them as seconds
          check_seconds(op, "key_time", in.behaviours.key_time, in.behaviours.mask, position,
                        position + 1);
        }
        to[at] = index >= 0 && is_valid(in.behaviours, position, g.query_time) ? position : -1;
      }
    }
  });
  return {positions, times};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("esu_attention_positions(" LONGCLOCK_ESU_LAYOUT(
      LONGCLOCK_SCHEMA) "Tensor found) -> (Tensor positions, Tensor query_time)");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("esu_attention_positions", TORCH_BOX(&esu_attention_positions));
}

}  // namespace longclock
