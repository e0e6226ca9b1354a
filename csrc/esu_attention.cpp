// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include <limits>
#include <memory>

#include "common/clocks.h"
#include "common/dispatch.h"
#include "common/large_outputs.h"
#include "common/parallel.h"
#include "esu_attention_call.h"
#include "longclock/calls/time_table_cache.h"
#include "longclock/common/range.h"
#include "longclock/common/stream_elements.h"

namespace longclock {

namespace {

// Rows that lie one behind the other at some distance, as a tensor of one or two dimensions fewer
// would have them; else a copy.
Tensor evenly_spaced(const Tensor& rows) {
  const Tensor near = unit_stride(rows);
  const bool even =
      near.size(0) <= 1 || near.size(1) <= 1 || near.stride(0) == near.size(1) * near.stride(1);
  return even ? near : as_contiguous(near);
}

void check_valid(const char* op, const Tensor& valid, int64_t queries, int64_t k, const char* why) {
  check(valid.scalar_type() == ScalarType::Bool, op, ": valid must be bool, got ", dtype_of(valid));
  check_shape(op, "valid", valid, {{"Q", queries}, {"K", k}}, why);
}

// Positions [begin, end) of the array lie among the behaviours, or below 0.
void check_below(const char* op, const int64_t* positions, int64_t begin, int64_t end,
                 int64_t behaviour_count) {
  if (all_between_cpu({{positions, true}, std::numeric_limits<int64_t>::min(), behaviour_count - 1},
                      begin, end)) {
    return;
  }
  for (int64_t at = begin; at < end; ++at) {
    check(positions[at] < behaviour_count, op, ": positions must be below T = ", behaviour_count,
          ", got ", positions[at]);
  }
}

void check_positions(const char* op, const Tensor& positions) {
  check(positions.scalar_type() == ScalarType::Long, op, ": positions must be int64, got ",
        dtype_of(positions));
}

}  // namespace

EsuInputs::EsuInputs(const char* op, const EsuArguments& a)
    : mlp(op, a.w1, a.b1, a.w2, a.b2, a.periods, a.units) {
  Behaviours& b = params.behaviours;
  b.dtype = check_float(op, "z", a.z);
  check_matches(op, "u", a.u, "z", a.z);
  check_int(op, "z_time", a.z_time);
  check_int(op, "query_time", a.query_time);
  check(a.u.dim() == 3, op, ": u must have shape [Q, n, L], got ", shape_of(a.u));
  queries = a.u.size(0);
  params.heads = a.u.size(1);
  params.dim = a.u.size(2);
  read_widths(op, a);
  if (a.positions) {
    read_found(op, a);
  } else {
    read_own(op, a);
  }
  check_shape(op, "query_time", a.query_time, {{"Q", queries}}, "to match u");
  features.read(op, kEsuWords, a.z, a.z_time, a.features, a.feature_ids, &b);

  const int64_t last = a.z.dim() - 1;
  z = unit_stride(a.z);
  z_time = as_contiguous(a.z_time);
  query_time = as_contiguous(a.query_time);
  b.keys = z.const_data_ptr();
  b.key_row_stride = z.stride(last - 1);
  b.key_time = int_array(z_time);
  b.time = mlp.time;
  params.width = params.dim + b.time.features();
  if (a.ids) {
    ids = as_contiguous(*a.ids);
    b.ids = int_array(ids);
  }
  params.z_query_stride = a.ids || a.positions ? 0 : z.stride(0);
  params.query_time = int_array(query_time);
}

// Where there are features, what u has besides their columns must be those of z.
void EsuInputs::read_widths(const char* op, const EsuArguments& a) {
  params.behaviours.dim = params.dim;
  if (all_of(a.features).empty()) return;
  const int64_t own = a.z.dim() == 0 ? 0 : a.z.size(a.z.dim() - 1);
  const int64_t dim = own + feature_columns(op, kEsuWords, a.features);
  check(params.dim == dim, op, ": u must have L = ", dim, " in its last dimension to match z, got ",
        shape_of(a.u));
  params.behaviours.dim = own;
}

void EsuInputs::read_own(const char* op, const EsuArguments& a) {
  check(a.z_time.dim() == 2 && a.z_time.size(0) == queries, op,
        ": z_time must have shape [Q, K] with Q = ", queries, " to match u, got ",
        shape_of(a.z_time));
  const int64_t k = params.k = a.z_time.size(1), dim = params.behaviours.dim;
  if (a.ids) {
    check(a.z.dim() == 2 && a.z.size(1) == dim, op,
          ": the table must have shape [N, L] with L = ", dim, " to match u, got ", shape_of(a.z));
    check_int(op, "ids", *a.ids);
    check_shape(op, "ids", *a.ids, {{"Q", queries}, {"K", k}}, "to match z_time");
  } else {
    check_shape(op, "z", a.z, {{"Q", queries}, {"K", k}, {"L", dim}}, "to match u and z_time");
  }
  if (!a.valid) return;
  check_valid(op, *a.valid, queries, k, "to match z_time");
  valid = as_contiguous(*a.valid);
  params.behaviours.mask = static_cast<const uint8_t*>(valid.const_data_ptr());
}

void EsuInputs::read_found(const char* op, const EsuArguments& a) {
  check_positions(op, *a.positions);
  check(a.positions->dim() == 2 && a.positions->size(0) == queries, op,
        ": positions must have shape [Q, K] with Q = ", queries, " to match u, got ",
        shape_of(*a.positions));
  check(!a.valid, op, ": valid must be None with positions; one below 0 is not valid");
  check(a.z_time.dim() == 1, op, ": z_time must have shape [T] with positions, got ",
        shape_of(a.z_time));
  behaviour_count = a.z_time.size(0);
  const int64_t dim = params.behaviours.dim;
  check(a.z.dim() == 2 && a.z.size(1) == dim, op, ": z must have shape [", a.ids ? "N" : "T",
        ", L] with L = ", dim, " to match u, got ", shape_of(a.z));
  if (a.ids) {
    check_int(op, "ids", *a.ids);
    check_shape(op, "ids", *a.ids, {{"T", behaviour_count}}, "to match z_time");
  } else {
    check_shape(op, "z_time", a.z_time, {{"T", a.z.size(0)}}, "to match z");
  }
  positions = as_contiguous(*a.positions);
  params.positions = static_cast<const int64_t*>(positions.const_data_ptr());
  params.k = positions.size(1);
}

EsuBackwardArguments::EsuBackwardArguments(const char* op, const EsuInputs& forward,
                                           const Tensor& grad_in, const Tensor& context_in,
                                           const Tensor& softmax_in) {
  const int64_t heads = forward.params.heads, width = forward.params.width;
  const std::string width_name = "L + " + std::to_string(forward.params.behaviours.time.features());
  for (const auto& [name, tensor] :
       {std::pair<const char*, const Tensor&>{"grad", grad_in},
        std::pair<const char*, const Tensor&>{"context", context_in}}) {
    check_defined(op, name, tensor);
    check(tensor.scalar_type() == ScalarType::Float, op, ": ", name, " must be float32, got ",
          dtype_of(tensor));
    check_shape(op, name, tensor,
                {{"Q", forward.queries}, {"n", heads}, {width_name.c_str(), width}}, "to match u");
  }
  check_defined(op, "softmax", softmax_in);
  check(softmax_in.scalar_type() == ScalarType::Float, op, ": softmax must be float32, got ",
        dtype_of(softmax_in));
  check_shape(op, "softmax", softmax_in, {{"Q", forward.queries}, {"n", heads}, {"2", 2}},
              "to match u");
  grad = as_contiguous(grad_in);
  context = as_contiguous(context_in);
  softmax = as_contiguous(softmax_in);
}

EsuTableGradArguments::EsuTableGradArguments(const char* op, const Tensor& z_grad_in,
                                             const Tensor& ids_in,
                                             const OptionalTensor& positions_in,
                                             const OptionalTensor& valid_in, int64_t table_rows) {
  params.dtype = check_float(op, "z_grad", z_grad_in);
  check(z_grad_in.dim() == 3, op, ": z_grad must have shape [Q, K, L], got ", shape_of(z_grad_in));
  check(table_rows >= 0, op, ": table_rows must be at least 0, got ", table_rows);
  const int64_t queries = z_grad_in.size(0), k = z_grad_in.size(1);
  check_int(op, "ids", ids_in);
  if (positions_in) {
    check_positions(op, *positions_in);
    check_shape(op, "positions", *positions_in, {{"Q", queries}, {"K", k}}, "to match z_grad");
    check(ids_in.dim() == 1, op, ": ids must have shape [T] with positions, got ",
          shape_of(ids_in));
    positions = as_contiguous(*positions_in);
    params.positions = static_cast<const int64_t*>(positions.const_data_ptr());
    params.behaviour_count = ids_in.size(0);
  } else {
    check_shape(op, "ids", ids_in, {{"Q", queries}, {"K", k}}, "to match z_grad");
  }
  if (valid_in) check_valid(op, *valid_in, queries, k, "to match z_grad");
  z_grad = evenly_spaced(z_grad_in);
  ids = as_contiguous(ids_in);
  params.z_grad = z_grad.const_data_ptr();
  params.z_row_stride = k > 1 ? z_grad.stride(1) : queries > 1 ? z_grad.stride(0) : z_grad.size(2);
  params.ids = int_array(ids);
  if (valid_in) {
    valid = as_contiguous(*valid_in);
    params.valid = static_cast<const uint8_t*>(valid.const_data_ptr());
  }
  params.count = queries * k;
  params.dim = z_grad_in.size(2);
  params.table_rows = table_rows;
}

namespace {

// What the CPU kernels want besides: padded fp32 rows of u, ids known to be in range, a table of s.
struct CpuAttention : EsuInputs {
  Tensor u;
  TimeTables tables;
  EsuAttentionParams params;

  CpuAttention(const char* op, const EsuArguments& a)
      : EsuInputs(op, a),
        u(padded_rows(a.u, a.z.scalar_type())),
        params{EsuInputs::params, static_cast<const float*>(u.const_data_ptr()),
               padded_dim(a.u.size(2))} {
    Behaviours& b = params.behaviours;
    const int64_t count = queries * params.k;
    if (params.positions != nullptr) {
      check_found(op);
    } else {
      for_each_ids([&](const IntArray& ids, int64_t rows, const std::string& name) {
        if (all_between_cpu({ids, 0, rows - 1}, 0, count)) return;
        for (int64_t at = 0; at < count; ++at) {
          const int64_t id = ids[at];
          const bool unread = b.mask != nullptr && b.mask[at] == 0;
          check_id(op, unread || (id >= 0 && id < rows), id, rows, at, name);
        }
      });
    }
    check_seconds(op, "query_time", query_time);
    tables = find_time_tables(&b.time, queries * params.k, torch_threads());
  }

  // Calls f(ids, rows of their table, what a caller calls them) for each table that has ids.
  template <class F>
  void for_each_ids(const F& f) const {
    const Behaviours& b = params.behaviours;
    if (b.ids) f(b.ids, z.size(0), b.feature_count == 0 ? "ids" : "ids[0]");
    for (int i = 0; i < b.feature_count; ++i) {
      if (b.features[i].ids) f(b.features[i].ids, b.features[i].table_rows, ids_name(i));
    }
  }

  // Positions lie in the histories, and ids in their tables.
  void check_found(const char* op) const {
    parallel_tasks(queries, 2 * queries * params.k, [&](int64_t begin, int64_t end) {
      check_below(op, params.positions, begin * params.k, end * params.k, behaviour_count);
      for_each_ids([&](const IntArray& ids, int64_t rows, const std::string& name) {
        for (int64_t at = begin * params.k; at < end * params.k; ++at) {
          const int64_t position = params.positions[at];
          if (position < 0) continue;
          const int64_t id = ids[position];
          if (id < 0 || id >= rows) check_id(op, false, id, rows, position, name);
        }
      });
    });
  }

  // Of the times that queries [begin, end) read, just before they are read.
  void check_times(const char* op, int64_t begin, int64_t end) const {
    const Behaviours& b = params.behaviours;
    if (params.positions == nullptr) {
      check_seconds(op, "z_time", b.key_time, b.mask, begin * params.k, end * params.k);
      return;
    }
    if (!b.key_time.is_64) return;
    for (int64_t at = begin * params.k; at < end * params.k; ++at) {
      const int64_t position = params.positions[at];
      if (position >= 0) check_second(op, "z_time", b.key_time[position], position);
    }
  }

  int64_t work() const { return queries * params.k * (params.dim * params.heads + 32); }
};

std::tuple<Tensor, Tensor> esu_attention(LONGCLOCK_ESU(LONGCLOCK_PARAMETER) bool /*sparse_grad*/) {
  constexpr const char* op = "esu_attention";
  CpuAttention a(op, LONGCLOCK_ESU_ARGUMENTS);
  Tensor context = make_empty(z, {a.queries, a.params.heads, a.params.width}, ScalarType::Float);
  Tensor softmax = make_empty(z, {a.queries, a.params.heads, 2}, ScalarType::Float);
  a.params.context = static_cast<float*>(context.mutable_data_ptr());
  a.params.softmax = static_cast<float*>(softmax.mutable_data_ptr());
  parallel_tasks(a.queries, a.work(), [&](int64_t begin, int64_t end) {
    a.check_times(op, begin, end);
    esu_attention_cpu(a.params, begin, end);
  });
  return {context, softmax};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> esu_attention_backward(
    const Tensor& grad_in, LONGCLOCK_ESU(LONGCLOCK_PARAMETER) const Tensor& context_in,
    const Tensor& softmax_in, bool need_u, bool need_z, bool need_mlp) {
  constexpr const char* op = "esu_attention_backward";
  CpuAttention a(op, LONGCLOCK_ESU_ARGUMENTS);
  const int64_t k = a.params.k, dim = a.params.dim;
  const EsuBackwardArguments saved(op, a, grad_in, context_in, softmax_in);
  a.params.context = static_cast<float*>(saved.context.data_ptr());  // read only
  a.params.softmax = static_cast<float*>(saved.softmax.data_ptr());

  const auto none = [&](const Tensor& like) { return make_empty(like, {0}); };
  Tensor u_grad = none(a.u), z_grad = none(z), w1_grad = none(w1), b1_grad = none(b1),
         w2_grad = none(w2), b2_grad = none(b2);
  EsuAttentionBackwardParams params{};
  params.forward = a.params;
  params.grad = static_cast<const float*>(saved.grad.const_data_ptr());
  if (need_u) {
    u_grad = make_empty(u, u.sizes(), ScalarType::Float);
    params.u_grad = static_cast<float*>(u_grad.mutable_data_ptr());
  }
  if (need_z) {
    z_grad = large_empty(z, {a.queries, k, dim});
    params.z_grad = z_grad.mutable_data_ptr();
    params.stream = z_grad.numel() > kStreamElements;
  }
  const size_t pairs = need_mlp ? static_cast<size_t>(a.queries * k) : 0;
  const size_t deltas = pairs * static_cast<size_t>(a.params.behaviours.time.clocks);
  const auto s_grad = std::make_unique_for_overwrite<float[]>(pairs);
  const auto s_delta = std::make_unique_for_overwrite<int32_t[]>(deltas);
  params.s_grad = need_mlp ? s_grad.get() : nullptr;
  params.s_delta = s_delta.get();
  params.pairs = static_cast<int64_t>(pairs);
  if (a.params.heads > 0) {
    parallel_tasks(a.queries, 2 * a.work(), [&](int64_t begin, int64_t end) {
      esu_attention_backward_cpu(params, begin, end);
    });
  } else {  // nothing attends, so nothing adds to what the kernel sums over heads
    std::fill_n(static_cast<char*>(z_grad.mutable_data_ptr()),
                z_grad.numel() * static_cast<int64_t>(z_grad.element_size()), 0);
    std::fill_n(s_grad.get(), pairs, 0.0f);
    std::fill_n(s_delta.get(), deltas, 0);
  }
  if (need_u) u_grad = as_dtype(u_grad, u.scalar_type());
  if (need_mlp) {
    std::tie(w1_grad, b1_grad, w2_grad, b2_grad) =
        time_mlp_gradient(a.mlp, {s_delta.get(), false}, s_grad.get(), static_cast<int64_t>(pairs));
  }
  return {u_grad, z_grad, w1_grad, b1_grad, w2_grad, b2_grad};
}

Tensor esu_attention_table_grad(const Tensor& z_grad, const Tensor& ids,
                                const OptionalTensor& positions, const OptionalTensor& valid,
                                int64_t table_rows) {
  constexpr const char* op = "esu_attention_table_grad";
  EsuTableGradArguments a(op, z_grad, ids, positions, valid, table_rows);
  if (a.params.positions != nullptr) {
    check_below(op, a.params.positions, 0, a.params.count, a.params.behaviour_count);
  }
  const int64_t dim = a.params.dim;
  int64_t elements = 0, work = 0;
  check(!__builtin_mul_overflow(table_rows, dim, &elements) &&
            !__builtin_add_overflow(elements, a.params.count * dim, &work),
        op, ": table_rows must make a gradient of fewer than 2^63 elements, got ", table_rows,
        " rows of ", dim, "; it is the N of the table [N, L]");
  const bool few = worthwhile_threads(work) <= 4;  // fetching pages is most of it
  Tensor table_grad;
  try {
    table_grad = large_zeros(a.z_grad, table_rows, dim, /*at_once=*/few);
  } catch (const std::runtime_error&) {
    check(false, op, ": table_rows must make a gradient that memory can hold, got ", table_rows,
          " rows of ", dim, " ", dtype_of(a.z_grad), "; for so large a table ask for a sparse one");
  }
  a.params.table_grad = table_grad.mutable_data_ptr();
  parallel_rows(
      table_rows, a.params.count, work, /*row_work=*/0.0,
      [&](int64_t at) -> int64_t {
        const int64_t from = a.params.positions == nullptr ? at : a.params.positions[at];
        return from >= 0 ? a.params.ids[from] : -1;
      },
      [&](int64_t begin, int64_t end) { esu_table_grad_cpu(a.params, begin, end); });
  return table_grad;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(longclock, m) {
  m.def("esu_attention(" LONGCLOCK_ESU(
      LONGCLOCK_SCHEMA) "bool sparse_grad) -> (Tensor context, Tensor softmax)");
  m.def("esu_attention_backward(Tensor grad, " LONGCLOCK_ESU(LONGCLOCK_SCHEMA)
        "Tensor context, Tensor softmax, bool need_u, bool need_z, bool need_mlp) -> (Tensor u, "
        "Tensor z, Tensor w1, Tensor b1, Tensor w2, Tensor b2)");
  m.def(
      "esu_attention_table_grad(Tensor z_grad, Tensor ids, Tensor? positions, Tensor? valid, int "
      "table_rows) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(longclock, LONGCLOCK_CPU_KEY, m) {
  m.impl("esu_attention", TORCH_BOX(&esu_attention));
  m.impl("esu_attention_backward", TORCH_BOX(&esu_attention_backward));
  m.impl("esu_attention_table_grad", TORCH_BOX(&esu_attention_table_grad));
}

}  // namespace longclock
