// SPDX-License-Identifier: Apache-2.0
// The frame of a search by one block a query, or a part of its behaviours: scores go to a
// BlockSelector in shared memory. Where there are fewer queries than multiprocessors a sequence is
// cut into parts, whose best are merged by a second launch.
#pragma once

#include <algorithm>

#include "longclock/common/launch.cuh"
#include "longclock/search/search_topk.h"
#include "longclock/search/sequence_view.cuh"
#include "longclock/selection/block_selector.cuh"
#include "longclock/selection/topk_merge.h"

namespace longclock {

// What a block works on.
struct QueryPart {
  unsigned parts, part;  // of the query's behaviours
  unsigned query;
};

__device__ __forceinline__ QueryPart part_of_block(const DeviceSearchTopKParams& p) {
  const unsigned parts = static_cast<unsigned>(p.parts);
  return {parts, blockIdx.x % parts, blockIdx.x / parts};
}

struct PartRange {
  int begin, end;
};

// The block's part of a query's `length` behaviours.
__device__ __forceinline__ PartRange range_of(const QueryPart& work, unsigned length) {
  const unsigned step = (length + work.parts - 1) / work.parts;
  return {static_cast<int>(min(length, work.part * step)),
          static_cast<int>(min(length, (work.part + 1) * step))};
}

// Selects the best of the block's part. push(at, n) hands the scores of behaviours [at, at + n) to
// `best`, as its places 0 to n - 1. length: behaviours of the query.
template <class Push>
__device__ __forceinline__ void select_part(const DeviceSearchTopKParams& p, const QueryPart& work,
                                            const SelectorPlan& plan, unsigned length,
                                            BlockSelector& best, const Push& push) {
  const PartRange part = range_of(work, length);
  for (int at = part.begin, n; at < part.end; at += n) {
    n = min(plan.capacity, part.end - at);
    best.begin();
    push(at, n);
    best.end(n, [&](int i) { return at + i; });
  }
  if (work.parts > 1) {
    TopKEntry* const entries = p.entries + int64_t{blockIdx.x} * p.k;
    best.for_each_entry(p.k, [&](int64_t i, TopKEntry entry) { entries[i] = entry; });
  } else {
    const int64_t out = int64_t{work.query} * p.k;
    best.write_sorted(p.k, p.scores + out, p.indices + out);
  }
}

// The best of every query's parts.
inline int merge_parts(const DeviceSearchTopKParams& p, CudaStream stream) {
  return launch_topk_merge(
      {DType::kFloat32, p.entries, p.search.queries, p.parts, p.k, p.scores, p.indices}, stream);
}

// launch(start, left) calls start(kernel, bytes, arguments...) for the kernel of the search, with
// `bytes` of shared memory besides the plan's; static_bytes is what the kernel has besides both.
// left: what a block may have besides all of these where the launch has no more than two blocks for
// a multiprocessor, and these are to be resident; else nothing.
template <class Launch>
int launch_parts(const DeviceSearchTopKParams& p, int static_bytes, CudaStream stream,
                 const Launch& launch) {
  const DeviceSearchParams& search = p.search;
  if (search.queries == 0 || p.k == 0) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t longest = (search.longest() + p.parts - 1) / p.parts;
  const SelectorPlan plan = plan_selector(
      longest, p.k, static_cast<int>(sizeof(BlockSelector::Shared)) + static_bytes, device);
  const unsigned blocks = grid_of(search.queries * p.parts);
  const int64_t resident = (search.queries * p.parts - 1) / device.multiprocessors + 1;
  int left = 0;
  if (resident <= 2) {
    const int share = device.shared_per_multiprocessor / static_cast<int>(resident);
    left = std::min(share - device.shared_reserved, device.shared_optin) - plan.bytes() -
           static_cast<int>(sizeof(BlockSelector::Shared)) - static_bytes;
  }
  cudaError_t error = cudaSuccess;
  const auto start = [&](auto* kernel, int bytes, auto... more) {
    error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    kernel<<<blocks, kSelectorThreads, plan.bytes() + bytes, stream>>>(p, plan, more...);
    error = cudaGetLastError();
  };
  launch(start, left);
  if (error != cudaSuccess || p.parts == 1) return error;
  return merge_parts(p, stream);
}

}  // namespace longclock
