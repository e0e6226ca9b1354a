// SPDX-License-Identifier: Apache-2.0
#include "search/search_cuda.h"

#include "longclock/common/device.h"
#include "longclock/common/grid.h"
#include "longclock/selection/topk_merge.h"
#include "search/features_cuda.h"

namespace longclock {
namespace {

const SearchArguments& on_one_device(const CudaCall& call, const SearchArguments& a) {
  LONGCLOCK_HASH_SEARCH(LONGCLOCK_CHECK_DEVICE)
  if (a.key_scale != nullptr) call.check_device("key_scale", *a.key_scale);
  if (a.features != nullptr) {
    check_feature_devices(call, kSearchWords, *a.features, *a.feature_ids);
  }
  return a;
}

// A block of a launch is a query or a sequence.
const SearchArguments& few_enough(const char* op, const SearchArguments& a) {
  const auto few = [](const Tensor& tensor, int64_t dims) {
    int64_t count = 1;
    for (int64_t d = 0; d < dims; ++d) count *= tensor.size(d);
    return count <= kMaxBlocks;
  };
  check(few(a.query, a.query.dim() - 1), op,
        ": query must have fewer than 2^31 queries on CUDA, got ", shape_of(a.query),
        "; call with fewer at a time");
  check(few(a.query_time, a.query_time.dim()), op,
        ": query_time must have fewer than 2^31 elements on CUDA, got ", shape_of(a.query_time),
        "; call with fewer sequences at a time");
  return a;
}

}  // namespace

void announce_layout(CudaCall& call, const LayoutInputs& in) {
  call.reads(in.key_time);
  call.reads(in.query_time);
  for (const auto* tensor :
       {&in.lengths, &in.offsets, &in.query_offsets, &in.starts, &in.ends, &in.mask}) {
    if (*tensor) call.reads(**tensor);
  }
}

DeviceSearchParams layout_params(const LayoutInputs& in) {
  const auto array = [](const std::optional<Tensor>& tensor) {
    return tensor ? int_array(*tensor) : IntArray{};
  };
  DeviceSearchParams p{};
  p.behaviours = in.behaviours;
  p.layout = in.layout;
  p.sequences = in.sequences;
  p.queries = in.query_count;
  p.positions = in.positions;
  p.query_time = int_array(in.query_time);
  make_device_clocks(in.behaviours.time, p.clocks);
  p.check = device_checks();
  p.filtered = in.behaviours.mask != nullptr || in.behaviours.exclude_future;
  if (in.dense()) {
    p.columns = in.columns;
    p.candidates = in.candidates;
  }
  p.lengths = array(in.lengths);
  p.offsets = array(in.offsets);
  p.query_offsets = array(in.query_offsets);
  p.starts = array(in.starts);
  p.ends = array(in.ends);
  return p;
}

DeviceSearchInputs::DeviceSearchInputs(const char* op, CudaCall& call, const SearchArguments& a)
    : SearchInputs(op, few_enough(op, on_one_device(call, a))) {
  // Kernels step over rows in 32 bits.
  if (behaviours.key_row_stride * size_of(behaviours.dtype) > 0x7fffffff) {
    keys = as_contiguous(a.keys);
    behaviours.keys = keys.const_data_ptr();
    behaviours.key_row_stride = keys.stride(keys.dim() - 2);
    if (dense() && !ids) sequence_stride = keys.stride(0);
    check(behaviours.dim * size_of(behaviours.dtype) <= 0x7fffffff, op,
          ": keys must have rows of less than 2 GB on CUDA, got ", shape_of(keys));
  }
  query_ = input(call, "query", a.query);
  if (mlp) read_mlp(call, *mlp);
  announce_layout(call, *this);
  call.reads(keys);
  if (key_scale) call.reads(*key_scale);
  if (ids) call.reads(*ids);
  announce_features(call, features);
}

DeviceSearchParams DeviceSearchInputs::params(double scale) const {
  DeviceSearchParams p = layout_params(*this);
  p.table_rows = table_rows();
  p.row_bytes = static_cast<unsigned>(behaviours.key_row_stride * size_of(behaviours.dtype));
  p.sequence_bytes = sequence_stride * size_of(behaviours.dtype);
  p.query = query_.const_data_ptr();
  p.query_dim = full_width(behaviours);
  p.query_is_float = query_.scalar_type() == ScalarType::Float;
  p.given_query = float_type(query_.scalar_type());
  p.scale = static_cast<float>(scale);
  return p;
}

DeviceSearchTopKCall::DeviceSearchTopKCall(CudaCall& call, const DeviceSearchInputs& search,
                                           double scale, int64_t k) {
  std::vector<int64_t> shape = search.query_shape;
  shape.push_back(k);
  scores = output(call, search.keys, shape, ScalarType::Float);
  indices = output(call, search.keys, shape, ScalarType::Long);
  params.search = search.params(scale);
  params.k = k;
  params.parts = 1;
  params.scores = data<float>(scores);
  params.indices = data<int64_t>(indices);
}

void DeviceSearchTopKCall::cut(CudaCall& call) {
  int64_t parts = 1;
  call.check_launch(topk_parts(params.search.queries, params.search.longest(), params.k, &parts));
  cut_into(call, parts);
}

void DeviceSearchTopKCall::cut_for_teams(CudaCall& call) {
  const DeviceSearchParams& search = params.search;
  int64_t parts = 1;
  call.check_launch(
      team_parts(search.queries, search.longest(), params.k, search.row_bytes, &parts));
  cut_into(call, parts);
}

void DeviceSearchTopKCall::cut_into(CudaCall& call, int64_t parts) {
  params.parts = parts;
  if (parts == 1) return;
  entries = output(call, indices, {params.search.queries, parts, params.k}, ScalarType::Long);
  params.entries = data<TopKEntry>(entries);
}

}  // namespace longclock
