// SPDX-License-Identifier: Apache-2.0
// A lane takes a behaviour at a time: its hash comes straight to registers, and its distance goes
// to the selector. That is one warp a query of up to 2,048 behaviours, and a TeamSelector where a
// block takes a part of a query's behaviours whole; else distances go in tiles to a BlockSelector.
#include "longclock/hamming_gsu/hamming_gsu.h"
#include "longclock/search/query_parts.cuh"
#include "longclock/selection/team_selector.cuh"

namespace longclock {
namespace {

// What a query compares hashes with. kWords: how many words a hash has; 0: any number.
template <int kWords>
class HashScorer {
 public:
  __device__ HashScorer(const DeviceSearchParams& search, int64_t q, const SequenceView& view)
      : search_(search),
        view_(view),
        words_(kWords > 0 ? kWords : static_cast<int>(search.behaviours.dim)),
        query_(static_cast<const uint64_t*>(search.query) + q * words_) {
#pragma unroll
    for (int w = 0; w < kWords; ++w) held_[w] = query_[w];
  }

  // Ordered score of behaviour m; 0: not valid.
  __device__ uint32_t operator()(int m) const {
    if (search_.filtered && !is_valid(search_, view_, m)) return 0;
    const Behaviours& behaviours = search_.behaviours;
    const char* row = row_after(search_, view_.keys, m);
    if (behaviours.ids) {
      const int64_t id = behaviours.ids[view_.position + m];
      const bool in_table = is_row(search_, id);
      if (search_.check) device_check(in_table, "ids must be from 0 to N - 1", "search");
      if (!in_table) return 0;
      row = static_cast<const char*>(behaviours.keys) + id * search_.row_bytes;
    }
    int bits = 0;
#pragma unroll kHeldWords
    for (int w = 0; w < words_; ++w) {
      const uint64_t of_query = kWords > 0 ? held_[w] : query_[w];
      bits += __popcll(reinterpret_cast<const uint64_t*>(row)[w] ^ of_query);
    }
    return ordered_score(static_cast<float>(-bits));
  }

 private:
  static constexpr int kHeldWords = kWords > 0 ? kWords : 1;
  const DeviceSearchParams& search_;
  const SequenceView& view_;
  int words_;
  const uint64_t* query_;
  uint64_t held_[kHeldWords];  // in registers
};

// Of n behaviours from `begin` on, four of a lane as a WarpSelector takes them.
template <class Selector, class Scorer>
__device__ __forceinline__ auto in_fours(const Scorer& score, int begin, int n) {
  return [&score, begin, n](int four) {
    uint32_t ordered[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = Selector::place_of(four, i);
      ordered[i] = at < n ? score(begin + at) : 0;
    }
    return make_uint4(ordered[0], ordered[1], ordered[2], ordered[3]);
  };
}

template <int kWords>
__global__ void __launch_bounds__(kWarpSelectorThreads)
    hamming_gsu_by_warp_kernel(const __grid_constant__ DeviceSearchTopKParams p) {
  using Selector = WarpSelector<kMaxWarpScores / (4 * kWarp), Places::kLanes>;
  __shared__ Selector::Shared shared[kWarpSelectorWarps];
  __shared__ SequenceView views[kWarpSelectorWarps];
  const int64_t q = int64_t{blockIdx.x} * kWarpSelectorWarps + warp_index();
  if (q >= p.search.queries) return;
  SequenceView& view = views[warp_index()];
  if (lane_index() == 0) view = view_sequence(p.search, sequence_of(p.search, q));
  __syncwarp();
  const HashScorer<kWords> score(p.search, q, view);
  const int n = static_cast<int>(view.length), k = static_cast<int>(p.k);
  Selector best(shared + warp_index(), k, n, in_fours<Selector>(score, 0, n));
  best.take(best.bound());
  best.write_sorted(p.scores + q * k, p.indices + q * k, [](int at) { return at; });
}

template <int kWords>
__global__ void __launch_bounds__(kTeamThreads, kTeamBlocks)
    hamming_gsu_by_team_kernel(const __grid_constant__ DeviceSearchTopKParams p) {
  using Selector = TeamSelector<Places::kLanes>;
  __shared__ Selector::Shared shared;
  __shared__ SequenceView view;
  const QueryPart work = part_of_block(p);
  const int64_t q = work.query;
  if (threadIdx.x == 0) view = view_sequence(p.search, sequence_of(p.search, q));
  __syncthreads();
  const HashScorer<kWords> score(p.search, q, view);
  const PartRange part = range_of(work, static_cast<unsigned>(view.length));
  const int k = static_cast<int>(p.k), n = part.end - part.begin;
  Selector::select(&shared, k, n, in_fours<Selector>(score, part.begin, n),
                   [&](auto& best, const auto& place) {
                     const auto index_of = [&](int at) { return part.begin + place(at); };
                     if (work.parts > 1) {
                       write_entries(best, p.entries + int64_t{blockIdx.x} * k, index_of);
                     } else {
                       best.write_sorted(p.scores + q * k, p.indices + q * k, index_of);
                     }
                   });
}

template <int kWords>
__global__ void __launch_bounds__(kSelectorThreads, 4)
    hamming_gsu_kernel(const __grid_constant__ DeviceSearchTopKParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  __shared__ SequenceView view;
  const QueryPart work = part_of_block(p);
  if (threadIdx.x == 0) view = view_sequence(p.search, sequence_of(p.search, work.query));
  __syncthreads();
  const HashScorer<kWords> score(p.search, work.query, view);
  BlockSelector best(&shared, memory, plan);
  select_part(p, work, plan, static_cast<unsigned>(view.length), best, [&](int at, int n) {
#pragma unroll 4
    for (int i = threadIdx.x; i < best.places(n); i += kSelectorThreads) {
      best.push(i, i < n ? score(at + i) : 0);
    }
  });
}

// Calls f with kWords.
template <class F>
void with_words(int64_t words, const F& f) {
  switch (words) {
    case 1:
      f(std::integral_constant<int, 1>{});
      break;
    case 2:
      f(std::integral_constant<int, 2>{});
      break;
    default:
      f(std::integral_constant<int, 0>{});
  }
}

}  // namespace

int launch_hamming_gsu(const DeviceSearchTopKParams& p, CudaStream stream) {
  const int64_t longest = p.search.longest(), words = p.search.behaviours.dim;
  const int64_t queries = p.search.queries;
  if (queries == 0 || p.k == 0) return cudaSuccess;
  if (p.parts == 1 && longest <= kMaxWarpScores && p.k <= kMaxWarpK) {
    with_words(words, [&](auto of_hash) {
      const unsigned blocks = grid_of((queries + kWarpSelectorWarps - 1) / kWarpSelectorWarps);
      hamming_gsu_by_warp_kernel<of_hash.value><<<blocks, kWarpSelectorThreads, 0, stream>>>(p);
    });
    return cudaGetLastError();
  }
  if (!suits_team(longest, p.parts, p.k)) {
    return launch_parts(p, sizeof(SequenceView), stream, [&](const auto& start, int) {
      with_words(words, [&](auto of_hash) { start(hamming_gsu_kernel<of_hash.value>, 0); });
    });
  }
  with_words(words, [&](auto of_hash) {
    hamming_gsu_by_team_kernel<of_hash.value>
        <<<grid_of(queries * p.parts), kTeamThreads, 0, stream>>>(p);
  });
  if (const int error = cudaGetLastError()) return error;
  return p.parts == 1 ? cudaSuccess : merge_parts(p, stream);
}

}  // namespace longclock
