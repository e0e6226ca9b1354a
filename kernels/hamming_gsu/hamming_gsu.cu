// SPDX-License-Identifier: Apache-2.0
// A thread takes a behaviour at a time: its hash comes straight to registers, and its distance goes
// to the selector.
#include "longclock/hamming_gsu/hamming_gsu.h"
#include "longclock/search/query_parts.cuh"

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
  const QueryPart work = part_of_block(p);
  const unsigned q = work.query;
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
  select_part(p, work, plan, static_cast<unsigned>(view.length), best, [&](int at, int n) {
#pragma unroll 4
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      best.push(i, i < n ? score(at + i) : 0);
    }
  });
}

}  // namespace

int launch_hamming_gsu(const DeviceSearchTopKParams& p, CudaStream stream) {
  return launch_parts(p, sizeof(SequenceView), stream, [&](const auto& start) {
    switch (p.search.behaviours.dim) {
      case 1:
        start(hamming_gsu_kernel<1>, 0);
        break;
      case 2:
        start(hamming_gsu_kernel<2>, 0);
        break;
      default:
        start(hamming_gsu_kernel<0>, 0);
    }
  });
}

}  // namespace longclock
