// SPDX-License-Identifier: Apache-2.0
// Memory-bound: a block's warps score rounds of 256 behaviours for all of its candidates, 32 each;
// then each warp selects for one or two of the candidates, from what lies in shared memory, while
// others begin the next round.
#include "longclock/common/launch.cuh"
#include "longclock/search/candidate_range.cuh"
#include "longclock/search/few_candidates.h"
#include "longclock/search/few_scorer.cuh"
#include "longclock/selection/round_selector.cuh"
#include "longclock/selection/topk_merge.h"

namespace longclock {
namespace {

constexpr int kWarps = RoundSelector::kRound / kWarpRows;
constexpr int kThreads = kWarps * kWarp;
// Scores of a candidate in a round, so far apart that lanes of eight candidates meet no bank twice.
constexpr int kScoreStride = RoundSelector::kRound + 20;
constexpr int kCandidateBytes =
    static_cast<int>(sizeof(RoundSelector::State)) + 2 * kScoreStride * 4;

// Shared memory of a block: queries, scores of two rounds, and what was taken.
struct Memory {
  char* queries;               // [most, row_bytes]
  uint32_t* scores;            // [2, most, kScoreStride]
  RoundSelector::State* best;  // [most]
  __device__ Memory(uint4* memory, const FewPlan& plan)
      : queries(reinterpret_cast<char*>(memory)),
        scores(reinterpret_cast<uint32_t*>(queries + plan.most * plan.row_bytes)),
        best(reinterpret_cast<RoundSelector::State*>(scores + 2 * plan.most * kScoreStride)) {}
};

// The candidates of tile `tile`.
__device__ __forceinline__ CandidateRange candidates_of(const DeviceSearchParams& p,
                                                        const FewPlan& plan, unsigned tile) {
  if (plan.windows) return candidates_of_window(p, tile, plan.most);
  if (p.layout != SearchLayout::kDense) return candidates_of(p, plan.task, tile, plan.most);
  const unsigned tiles = (static_cast<unsigned>(p.candidates) + plan.most - 1) / plan.most;
  const unsigned s = tile / tiles, first = tile % tiles * plan.most;
  const int left = static_cast<int>(p.candidates - first);
  return {s, s * p.candidates + first, min(left, plan.most), first == 0};
}

template <class T, RowForm kForm>
__global__ void __launch_bounds__(kThreads, 2)
    few_candidates_kernel(const __grid_constant__ DeviceSearchTopKParams p,
                          const __grid_constant__ FewPlan plan) {
  extern __shared__ uint4 shared[];
  __shared__ SharedTimeTerm time;
  __shared__ SequenceView view;
  const unsigned tiles = static_cast<unsigned>(plan.tiles), part = blockIdx.x / tiles;
  // Tiles of candidates are neighbours: those of a sequence read the same keys.
  __shared__ CandidateRange range;
  if (warp_index() == 0) {
    const CandidateRange found = candidates_of(p.search, plan, blockIdx.x % tiles);
    if (lane_index() == 0) range = found;
  }
  __syncthreads();
  const CandidateRange candidates = range;
  if (candidates.count == 0) return;
  if (p.search.check && static_cast<int>(threadIdx.x) < candidates.count) {
    device_check(sequence_of(p.search, candidates.query + threadIdx.x) == candidates.sequence,
                 "query_offsets must run from 0 to Q and not decrease", "search");
  }
  const Memory memory(shared, plan);
  load_view(p.search, [&] { return candidates.sequence; }, &view, &time);
  load_few_queries<T>(p.search, candidates.query, candidates.count, plan.row_bytes, memory.queries);
  __syncthreads();

  const unsigned length = static_cast<unsigned>(view.length);
  const unsigned parts = static_cast<unsigned>(p.parts), step = (length + parts - 1) / parts;
  const unsigned begin = min(length, part * step), end = min(length, (part + 1) * step);
  const FewScorer<T, kForm> scorer(p.search, view, time, memory.queries, plan.row_bytes,
                                   candidates.count);
  // Calls f(selector, candidate) for the candidates whose best this warp selects.
  const auto for_each_own = [&](const auto& f) {
#pragma unroll 1
    for (int i = warp_index(); i < candidates.count; i += kWarps) {
      RoundSelector own(memory.best + i, static_cast<int>(p.k));
      f(own, i);
    }
  };
  for (int i = warp_index(); i < candidates.count; i += kWarps)
    RoundSelector::begin(memory.best + i);
  uint32_t *scores = memory.scores, *next = scores + plan.most * kScoreStride;
  for (unsigned at = begin; at < end; at += RoundSelector::kRound) {
    const int first = warp_index() * kWarpRows;
    scorer.score(at + first, end, [&](int candidate, int row, uint32_t ordered) {
      scores[candidate * kScoreStride + first + row] = ordered;
    });
    __syncthreads();
    for_each_own([&](RoundSelector& own, int candidate) {
      own.take(scores + candidate * kScoreStride, at);
    });
    uint32_t* const done = scores;
    scores = next;
    next = done;
  }
  for_each_own([&](RoundSelector& own, int candidate) {
    const int64_t q = candidates.query + candidate;
    if (parts > 1) {
      TopKEntry* const entries = p.entries + (q * parts + part) * p.k;
      own.for_each_entry([&](int i, TopKEntry entry) { entries[i] = entry; });
    } else {
      own.write_sorted(p.scores + q * p.k, p.indices + q * p.k, [](int index) { return index; });
    }
  });
}

// Into how many parts each sequence is cut, whose tiles are dealt to two blocks a multiprocessor:
// those that end first, if a part takes as long to begin and to merge as kStart behaviours.
int64_t few_parts(int64_t tiles, int64_t longest, int64_t k, int multiprocessors) {
  constexpr int64_t kStart = 512, kMinPart = 1024;
  const int64_t resident = 2 * int64_t{multiprocessors};
  const int64_t most = longest / (4 * k < kMinPart ? kMinPart : 4 * k);
  int64_t best = 1, least = INT64_MAX;
  for (int64_t parts = 1; parts <= most && (parts - 1) * tiles < 4 * resident; ++parts) {
    const int64_t time = (tiles * parts + resident - 1) / resident * (longest / parts + kStart);
    if (time < least) best = parts, least = time;
  }
  return best;
}

}  // namespace

int plan_few_topk(const DeviceSearchParams& search, int64_t k, FewPlan* plan) {
  *plan = {};
  const bool dense = search.layout == SearchLayout::kDense;
  const bool windows = search.layout == SearchLayout::kWindows && !search.query_offsets;
  const bool shared = dense ? search.candidates > 1 : search.query_offsets || windows;
  if (!shared || k < 1 || k > kMaxWarpK || search.queries == 0 || search.sequences == 0) {
    return cudaSuccess;
  }
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  // Rows so far apart that those of two quads meet no bank twice.
  const int64_t row_bytes = padded_query_bytes(search) + 64;
  // Of a flat search the host does not know the counts: two blocks of the largest tiles fit a
  // multiprocessor.
  const int block =
      dense ? device.shared_optin : device.shared_per_multiprocessor / 2 - device.shared_reserved;
  const int64_t room =
      block -
      static_cast<int64_t>(sizeof(SharedTimeTerm) + sizeof(SequenceView) + sizeof(CandidateRange)) -
      64;
  const int64_t fits = room / (kCandidateBytes + row_bytes);
  const int64_t most = fits < kTileQueries ? fits : kTileQueries;
  if (most < 2) return cudaSuccess;
  plan->supported = true;
  plan->row_bytes = static_cast<int>(row_bytes);
  plan->most = static_cast<int>(most);
  plan->task = query_task(search, 0, search.queries);
  plan->tiles = search.queries / most + search.sequences;
  if (dense) {  // tiles of equal size
    const int64_t tiles = (search.candidates + most - 1) / most;
    plan->most = static_cast<int>((search.candidates + tiles - 1) / tiles);
    plan->tiles = tiles * search.sequences;
  }
  plan->windows = windows;
  if (windows) plan->tiles = search.queries;
  plan->parts = few_parts(plan->tiles, search.longest(), k, device.multiprocessors);
  return cudaSuccess;
}

int launch_few_topk(const DeviceSearchTopKParams& p, const FewPlan& plan, CudaStream stream) {
  const DeviceSearchParams& search = p.search;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int bytes = plan.most * (kCandidateBytes + plan.row_bytes);
  const unsigned blocks = grid_of(plan.tiles * p.parts);
  cudaError_t error = cudaSuccess;
  const auto launch = [&](auto* kernel) {
    error = allow_all_shared(kernel, device);
    if (error != cudaSuccess) return;
    kernel<<<blocks, kThreads, bytes, stream>>>(p, plan);
    error = cudaGetLastError();
  };
  LONGCLOCK_WITH_DTYPE(search.behaviours.dtype, T, with_row_form(search, [&](auto form, auto) {
                         launch(few_candidates_kernel<T, form>);
                       }));
  if (error != cudaSuccess || p.parts == 1 || plan.windows) return error;
  return launch_topk_merge(
      {DType::kFloat32, p.entries, search.queries, p.parts, p.k, p.scores, p.indices}, stream);
}

}  // namespace longclock
