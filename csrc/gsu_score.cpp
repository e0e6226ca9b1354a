// SPDX-License-Identifier: Apache-2.0
#include "longclock/gsu_score/gsu_score.h"

#include <torch/csrc/stable/library.h>

#include "common/clocks.h"
#include "common/dispatch.h"
#include "common/large_outputs.h"
#include "common/parallel.h"
#include "longclock/common/stream_elements.h"
#include "search/search.h"

namespace longclock {
namespace {

// For every kKeyGradPart positions, the groups that see some of them, in order.
struct GroupsByPart {
  std::vector<int64_t> begin, groups;

  GroupsByPart(const std::vector<Group>& all, int64_t positions)
      : begin(static_cast<size_t>((positions + kKeyGradPart - 1) / kKeyGradPart + 1)) {
    for_each(all, [&](int64_t part, int64_t) { ++begin[part + 1]; });
    for (size_t part = 1; part < begin.size(); ++part) begin[part] += begin[part - 1];
    groups.resize(static_cast<size_t>(begin.back()));
    std::vector<int64_t> next(begin.begin(), begin.end() - 1);
    for_each(all, [&](int64_t part, int64_t group) { groups[next[part]++] = group; });
  }

 private:
  template <class F>
  static void for_each(const std::vector<Group>& all, const F& f) {
    for (size_t index = 0; index < all.size(); ++index) {
      const Group& g = all[index];
      if (g.length == 0) continue;
      const int64_t last = (g.position + g.length - 1) / kKeyGradPart;
      for (int64_t part = g.position / kKeyGradPart; part <= last; ++part) {
        f(part, static_cast<int64_t>(index));
      }
    }
  }
};

Tensor gsu_score(LONGCLOCK_SEARCH(LONGCLOCK_PARAMETER) LONGCLOCK_FEATURES(LONGCLOCK_PARAMETER)
                     LONGCLOCK_IN_BYTES(LONGCLOCK_PARAMETER) std::optional<int64_t>
                         total) {
  constexpr const char* op = "gsu_score";
  Search search(op, LONGCLOCK_ANY_SEARCH_ARGUMENTS);
  check(!total || *total == search.score_count, op, ": total must be ", search.score_count,
        ", the number of scores, got ", total.value_or(0), "; None has it counted");
  Tensor scores = make_empty(keys, search.score_shape(search.score_count), ScalarType::Float);
  search.tabulate();
  const std::vector<SearchTask>& tasks = search.cut(/*into_parts=*/true, kQueryTile);
  const GsuScoreParams params{search.behaviours,
                              static_cast<const float*>(search.queries.const_data_ptr()),
                              search.query_stride,
                              search.groups.data(),
                              tasks.data(),
                              static_cast<float>(scale),
                              static_cast<float*>(scores.mutable_data_ptr()),
                              search.score_count > kStreamElements};
  run_tasks(op, search.behaviours, search, tasks, torch_threads(),
            [&](int64_t begin, int64_t end) { gsu_score_cpu(params, begin, end); });
  return scores;
}

// The gradient of keys, or of the table.
Tensor key_gradient(const Search& search, GsuScoreBackwardParams* params) {
  const Tensor& keys = search.keys;
  if (search.ids) {
    Tensor table_grad = large_zeros(keys, keys.size(0), keys.size(1), /*at_once=*/false);
    params->key_grad = table_grad.mutable_data_ptr();
    const IntArray& ids = search.behaviours.ids;
    // Rows of 16 bits are summed elsewhere, and all are written.
    const double row_work = search.behaviours.dtype == DType::kFloat32 ? 0.0 : 1.0;
    parallel_rows(
        keys.size(0), search.positions, search.work(), row_work,
        [&](int64_t position) { return ids[position]; },
        [&](int64_t begin, int64_t end) { gsu_score_table_grad_cpu(*params, begin, end); });
    return table_grad;
  }
  Tensor key_grad = large_empty(keys, keys.sizes());
  params->key_grad = key_grad.mutable_data_ptr();
  const GroupsByPart index(search.groups, search.positions);
  params->positions = search.positions;
  params->part_begin = index.begin.data();
  params->part_groups = index.groups.data();
  parallel_tasks(static_cast<int64_t>(index.begin.size()) - 1, search.work(),
                 [&](int64_t begin, int64_t end) { gsu_score_key_grad_cpu(*params, begin, end); });
  return key_grad;
}

// The gradients of w1, b1, w2 and b2. scores: elements of the scores' gradient.
std::tuple<Tensor, Tensor, Tensor, Tensor> mlp_gradient(const Search& search, int64_t scores,
                                                        GsuScoreBackwardParams* params) {
  std::vector<int64_t> s_begin;
  int64_t count = 0;
  for (const Group& group : search.groups) {
    s_begin.push_back(count);
    count += group.length;
  }
  std::vector<float> s_grad(static_cast<size_t>(count));
  std::vector<int32_t> s_delta(static_cast<size_t>(search.behaviours.time.clocks * count));
  params->s_begin = s_begin.data();
  params->s_grad = s_grad.data();
  params->s_delta = s_delta.data();
  params->s_count = count;
  parallel_tasks(params->group_count, scores + count,
                 [&](int64_t begin, int64_t end) { gsu_score_s_grad_cpu(*params, begin, end); });
  return time_mlp_gradient(*search.mlp, {s_delta.data(), false}, s_grad.data(), count);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> gsu_score_backward(
    const Tensor& grad_in, LONGCLOCK_SEARCH(LONGCLOCK_PARAMETER) bool need_query, bool need_keys,
    bool need_mlp) {
  constexpr const char* op = "gsu_score_backward";
  Search search(op, LONGCLOCK_SEARCH_ARGUMENTS);
  check_defined(op, "grad", grad_in);
  check(grad_in.scalar_type() == ScalarType::Float && grad_in.numel() == search.score_count, op,
        ": grad must be float32 with ", search.score_count, " elements, as the scores, got ",
        dtype_of(grad_in), " ", shape_of(grad_in));
  const Tensor grad = as_contiguous(grad_in);
  const std::vector<SearchTask>& tasks = search.cut(/*into_parts=*/false, kQueryTile);
  GsuScoreBackwardParams params{};
  params.behaviours = search.behaviours;
  params.queries = static_cast<const float*>(search.queries.const_data_ptr());
  params.query_stride = search.query_stride;
  params.groups = search.groups.data();
  params.group_count = static_cast<int64_t>(search.groups.size());
  for (const Group& group : search.groups) {
    params.most_queries = std::max(params.most_queries, group.query_end - group.query_begin);
  }
  params.tasks = tasks.data();
  params.scale = static_cast<float>(scale);
  params.grad = static_cast<const float*>(grad.const_data_ptr());

  const auto none = [&](const Tensor& like) { return make_empty(like, {0}); };
  Tensor query_grad = none(query), key_grad = none(keys), w1_grad = none(w1), b1_grad = none(b1),
         w2_grad = none(w2), b2_grad = none(b2);
  if (need_query) {
    query_grad = make_empty(query, query.sizes(), ScalarType::Float);
    params.query_grad = static_cast<float*>(query_grad.mutable_data_ptr());
    parallel_tasks(
        static_cast<int64_t>(tasks.size()), search.work(),
        [&](int64_t begin, int64_t end) { gsu_score_query_grad_cpu(params, begin, end); });
    query_grad = as_dtype(query_grad, query.scalar_type());
  }
  if (need_keys) key_grad = key_gradient(search, &params);
  if (need_mlp) {
    std::tie(w1_grad, b1_grad, w2_grad, b2_grad) = mlp_gradient(search, grad.numel(), &params);
  }
  return {query_grad, key_grad, w1_grad, b1_grad, w2_grad, b2_grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("gsu_score(" LONGCLOCK_SEARCH(LONGCLOCK_SCHEMA) LONGCLOCK_FEATURES(LONGCLOCK_SCHEMA)
            LONGCLOCK_IN_BYTES(LONGCLOCK_SCHEMA) "int? total) -> Tensor");
  m.def(
      "gsu_score_backward(Tensor grad, " LONGCLOCK_SEARCH(LONGCLOCK_SCHEMA)
      "bool need_query, bool need_keys, bool need_mlp) -> (Tensor query, Tensor keys, Tensor w1, "
      "Tensor b1, Tensor w2, Tensor b2)");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("gsu_score", TORCH_BOX(&gsu_score));
  m.impl("gsu_score_backward", TORCH_BOX(&gsu_score_backward));
}

}  // namespace longclock
