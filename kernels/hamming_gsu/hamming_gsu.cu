// SPDX-License-Identifier: Apache-2.0
// One block a query, or a part of its behaviours: a behaviour a thread and step, whose hash comes
// straight to registers and whose distance goes to a BlockSelector. Where there are fewer queries
// than multiprocessors a sequence is cut into parts, whose best are merged by a second launch.
#include "longclock/common/launch.cuh"
#include "longclock/hamming_gsu/hamming_gsu.h"
#include "longclock/search/sequence_view.cuh"
#include "longclock/selection/block_selector.cuh"
#include "longclock/selection/topk_merge.h"

namespace longclock {
namespace {

// kWords: how many words a hash has; 0: any number.
template <int kWords>
__global__ void __launch_bounds__(kSelectorThreads)
    hamming_gsu_kernel(const __grid_constant__ DeviceSearchTopKParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const DeviceSearchParams& search = p.search;
  const Behaviours& behaviours = search.behaviours;
  const unsigned parts = static_cast<unsigned>(p.parts), part = blockIdx.x % parts;
  const unsigned q = blockIdx.x / parts;
  const int words = kWords > 0 ? kWords : static_cast<int>(behaviours.dim);
  const uint64_t* query = static_cast<const uint64_t*>(search.query) + int64_t{q} * words;
  constexpr int kHeldWords = kWords > 0 ? kWords : 1;
  uint64_t held[kHeldWords];  // of the query, in registers
#pragma unroll
  for (int w = 0; w < kWords; ++w) held[w] = query[w];
  __shared__ SequenceView view;
  if (threadIdx.x == 0) view = view_sequence(search, sequence_of(search, q));
  __syncthreads();

  // Ordered score of behaviour m; 0: not valid.
  const auto score = [&](int m) -> uint32_t {
    if (search.filtered && !is_valid(search, view, m)) return 0;
    const char* row = row_after(search, view.keys, m);
    if (behaviours.ids) {
      const int64_t id = behaviours.ids[view.position + m];
      const bool in_table = is_row(search, id);
      if (search.check) device_check(in_table, "ids must be from 0 to N - 1", "search");
      if (!in_table) return 0;
      row = static_cast<const char*>(behaviours.keys) + id * search.row_bytes;
    }
    int bits = 0;
#pragma unroll kHeldWords
    for (int w = 0; w < words; ++w) {
      const uint64_t of_query = kWords > 0 ? held[w] : query[w];
      bits += __popcll(reinterpret_cast<const uint64_t*>(row)[w] ^ of_query);
    }
    return ordered_score(static_cast<float>(-bits));
  };
  BlockSelector best(&shared, memory, plan);
  const unsigned length = static_cast<unsigned>(view.length), step = (length + parts - 1) / parts;
  const int begin = static_cast<int>(min(length, part * step));
  const int end = static_cast<int>(min(length, (part + 1) * step));
  for (int at = begin, n; at < end; at += n) {
    n = min(plan.capacity, end - at);
    best.begin();
#pragma unroll 4
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      best.push(i, i < n ? score(at + i) : 0);
    }
    best.end(n, [&](int i) { return at + i; });
  }
  if (parts > 1) {
    TopKEntry* const entries = p.entries + int64_t{blockIdx.x} * p.k;
    best.for_each_entry(p.k, [&](int64_t i, TopKEntry entry) { entries[i] = entry; });
  } else {
    best.write_sorted(p.k, p.scores + int64_t{q} * p.k, p.indices + int64_t{q} * p.k);
  }
}

}  // namespace

int launch_hamming_gsu(const DeviceSearchTopKParams& p, CudaStream stream) {
  const DeviceSearchParams& search = p.search;
  if (search.queries == 0 || p.k == 0) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t longest = search.longest();
  const SelectorPlan plan =
      plan_selector((longest + p.parts - 1) / p.parts, p.k,
                    static_cast<int>(sizeof(BlockSelector::Shared) + sizeof(SequenceView)), device);
  const unsigned blocks = grid_of(search.queries * p.parts);
  cudaError_t error = cudaSuccess;
  const auto launch = [&](auto* kernel) {
    error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    kernel<<<blocks, kSelectorThreads, plan.bytes(), stream>>>(p, plan);
    error = cudaGetLastError();
  };
  switch (search.behaviours.dim) {
    case 1:
      launch(hamming_gsu_kernel<1>);
      break;
    case 2:
      launch(hamming_gsu_kernel<2>);
      break;
    default:
      launch(hamming_gsu_kernel<0>);
  }
  if (error != cudaSuccess || p.parts == 1) return error;
  return launch_topk_merge(
      {DType::kFloat32, p.entries, search.queries, p.parts, p.k, p.scores, p.indices}, stream);
}

}  // namespace longclock
