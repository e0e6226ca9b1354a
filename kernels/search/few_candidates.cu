// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/few_candidates.cuh"
#include "longclock/selection/topk_merge.h"

namespace longclock {
namespace {

// Shared memory of tiles of `most` candidates: what comes before the lists.
int64_t front_bytes(const DeviceSearchParams& search, int64_t k, int64_t most) {
  const int64_t bytes = most * (few_row_bytes(search) + kRoundBytes);
  if (k <= kMaxWarpK) return bytes;
  int64_t sorted = kMaxWarpK;
  while (sorted < k) sorted *= 2;
  const int64_t sort_bytes = sorted * static_cast<int64_t>(sizeof(TopKEntry));
  return bytes < sort_bytes ? sort_bytes : bytes;
}

}  // namespace

int plan_few_topk(const DeviceSearchParams& search, int64_t k, FewPlan* plan) {
  *plan = {};
  if (k < 1 || !shares_sequences(search)) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int least = RoundSelector::least_room(static_cast<int>(k));
  const auto bytes = [&](int64_t most) {
    return front_bytes(search, k, most) + most * RoundSelector::bytes(least);
  };
  plan->digit_bytes =
      k <= kMaxWarpK ? 0 : kFewWarps * static_cast<int>(sizeof(RoundSelector::Digits));
  const int64_t fixed = static_cast<int64_t>(sizeof(FewShared)) + plan->digit_bytes;
  const int64_t half = device.shared_per_multiprocessor / 2 - device.shared_reserved - fixed;
  const int64_t whole = device.shared_optin - fixed;
  // Of a flat search the host does not know the counts: two blocks of the largest tiles fit a
  // multiprocessor, but for long lists.
  const bool dense = search.layout == SearchLayout::kDense;
  const int64_t memory = dense || k > kMaxWarpK ? whole : half;
  int most = kTileQueries;
  while (most > 1 && bytes(most) > memory) --most;
  if (most < 2) return cudaSuccess;
  plan->supported = true;
  plan->tiles = few_tiles(search, most);
  plan->tiles.parts = balanced_parts(plan->tiles.count, search.longest(),
                                     topk_part_costs(k, kFewStart), device.multiprocessors);
  most = plan->tiles.most;
  plan->front_bytes = static_cast<int>(front_bytes(search, k, most));
  // Lists are longer where there is memory left, of half a multiprocessor or of all.
  const int64_t left = (bytes(most) <= half ? half : whole) - bytes(most);
  const int more = static_cast<int>(left / most / 16) * 2;
  const int wanted = RoundSelector::wanted_room(static_cast<int>(k));
  plan->room = least + more < wanted ? least + more : wanted;
  plan->list_bytes = RoundSelector::bytes(plan->room);
  return cudaSuccess;
}

int launch_few_topk(const DeviceSearchTopKParams& p, const FewPlan& plan, CudaStream stream) {
  const DeviceSearchParams& search = p.search;
  const DType dtype = search.behaviours.dtype;
  const auto with_elements = [&](const auto& launch) {
    LONGCLOCK_WITH_DTYPE(dtype, T, with_form(search, [&](auto form) { launch(T{}, form); }));
  };
  const int error = dtype == DType::kInt8     ? launch_few_tiles_int8(p, plan, stream)
                    : dtype == DType::kFloat8 ? launch_few_tiles_float8(p, plan, stream)
                                              : launch_few_tiles(p, plan, stream, with_elements);
  if (error != cudaSuccess || p.parts == 1 || plan.tiles.windows) return error;
  return launch_topk_merge(
      {DType::kFloat32, p.entries, search.queries, p.parts, p.k, p.scores, p.indices}, stream);
}

}  // namespace longclock
