// SPDX-License-Identifier: Apache-2.0
// The best k <= 128 of up to 10,240 scores by one block. Each of its eight warps has a run of them
// in registers, and takes of it what reaches a bound that they find together: the k-th largest of
// the threads' largest. What the warps take, in order of place, is little enough for the first to
// select of. Where a warp takes more than k, it keeps the k best of them.
#pragma once

#include "longclock/selection/warp_selector.cuh"

namespace longclock {

constexpr int kTeamWarps = 8;
constexpr int kTeamThreads = kTeamWarps * kWarp;
constexpr int kTeamBlocks = 2;  // a multiprocessor, whose registers suffice
constexpr int kRunPieces = 10;
constexpr int kMaxTeamScores = kTeamThreads * 4 * kRunPieces;

// Whether a team takes a part whole, where the longest row has `longest` scores.
inline bool suits_team(int64_t longest, int64_t parts, int64_t k) {
  return k <= kMaxWarpK && (longest + parts - 1) / parts <= kMaxTeamScores;
}

template <Places kPlaces>
class TeamSelector {
  using OfRun = WarpSelector<kRunPieces, kPlaces>;
  static constexpr int kMaxLeft = kTeamWarps * kMaxWarpK;  // places of what the runs leave
  using OfLeft = WarpSelector<kMaxLeft / (4 * kWarp)>;

 public:
  struct Shared {
    typename OfRun::Shared runs[kTeamWarps];
    typename OfLeft::Shared left;
    uint32_t largest[kTeamThreads];
    int counts[kTeamWarps];
  };

  __device__ static int place_of(int four, int i) { return OfRun::place_of(four, i); }

  // By all threads. four(i): as of a WarpSelector of all n scores. write(best, place_of), by the
  // first warp: its selector, whose places place_of turns into those of the scores.
  template <class Four, class Write>
  __device__ static void select(Shared* shared, int k, int n, const Four& four,
                                const Write& write) {
    const int warp = warp_index();
    const int run = (n + kTeamThreads * 4 - 1) / (kTeamThreads * 4) * kWarp;  // fours of a warp's
    const int scores = min(max(n - warp * run * 4, 0), run * 4);
    OfRun best(shared->runs + warp, k, scores, [&](int i) { return four(warp * run + i); });
    shared->largest[threadIdx.x] = best.largest();
    __syncthreads();
    best.take(bound(shared, k));
    if (best.count() > kMaxWarpK) best.keep_best();
    if (lane_index() == 0) shared->counts[warp] = best.count();
    __syncthreads();
    if (warp > 0) return;
    // A place is a list and a place in it; lists are no longer than need be.
    const int longest = warp_max(lane_index() < kTeamWarps ? shared->counts[lane_index()] : 0);
    int room = kWarp;
    while (room < longest) room *= 2;
    const auto entry = [&](int at) { return shared->runs[at / room].taken[at % room]; };
    const auto ordered = [&](int at) {
      return at % room < shared->counts[at / room] ? ordered_score_of(entry(at)) : 0;
    };
    OfLeft of_left(&shared->left, k, kTeamWarps * room, [&](int i) {
      return make_uint4(ordered(4 * i), ordered(4 * i + 1), ordered(4 * i + 2), ordered(4 * i + 3));
    });
    of_left.take(of_left.bound());
    write(of_left,
          [&](int at) { return static_cast<int>(entry_index(entry(at))) + at / room * run * 4; });
  }

 private:
  // A lower bound of the k-th best, 1 at least: the k-th largest of the threads' largest, down to
  // the bits of its upper half. Every warp finds it.
  __device__ static uint32_t bound(const Shared* shared, int k) {
    uint32_t largest[kTeamWarps];
#pragma unroll
    for (int w = 0; w < kTeamWarps; ++w) largest[w] = shared->largest[w * kWarp + lane_index()];
    return max(kth_largest(largest, kTeamWarps, k, 0, 0x10000), 1u);
  }
};

// The k best of a selector as a part's entries, in order of place. index_of(place). By its warp.
template <class IndexOf>
__device__ __forceinline__ void write_entries(WarpEntries& best, TopKEntry* entries,
                                              const IndexOf& index_of) {
  best.for_each_entry([&](int i, TopKEntry entry) {
    const int place = static_cast<int>(entry_index(entry));
    entries[i] = entry == 0 ? 0 : topk_entry_of(ordered_score_of(entry), index_of(place));
  });
}

}  // namespace longclock
