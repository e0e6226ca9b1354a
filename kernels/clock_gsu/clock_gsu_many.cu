// SPDX-License-Identifier: Apache-2.0
// What the sweeps of clock_gsu_sweep.cuh leave to choose from, a block a query; and the launches.
#include "../block_topk/block_selector.cuh"
#include "../common/launch.cuh"
#include "../gsu_score/search.cuh"
#include "candidate_tile.cuh"
#include "clock_gsu_many.h"

namespace longclock {
namespace {

// Fewer candidates a sequence fill so little of a tile that a block for each of them is faster.
constexpr int64_t kFewestCandidates = 16;
constexpr int kMostRowBytes = 512;
// The sweeps know rows of a table by 32 bits, of which one value is none.
constexpr int64_t kMostTableRows = 0xffffffff;
constexpr int64_t kWorkspaceWords = int64_t{64} << 20;  // 256 MB, or one query's where that is more
constexpr int64_t kFewestOfARound = 512;                // queries, ragged
// The sweeps write delegates of whole tiles.
constexpr int kTileDelegates = kTileKeys / kDelegateKeys;

// The k best blocks of a query, in order of block: their delegates become their places.
__global__ void __launch_bounds__(kSelectorThreads)
    clock_gsu_choose_kernel(const __grid_constant__ ClockGsuManyParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, p.round_begin + row));
  const int blocks =
      static_cast<int>((static_cast<unsigned>(view.length) + kDelegateKeys - 1) / kDelegateKeys);
  uint4* const delegates = reinterpret_cast<uint4*>(p.delegates + row * p.blocks);
  BlockSelector best(&shared, memory, plan);
  for (int at = 0; at < blocks; at += plan.capacity) {
    const int n = min(plan.capacity, blocks - at);
    const auto ordered = [&](int i, uint32_t bits) {
      return i >= n || bits == kNobody ? 0 : ordered_score(__uint_as_float(bits));
    };
    best.begin();
#pragma unroll 2
    for (int i = threadIdx.x; i < best.places(n) / 4; i += kSelectorThreads) {
      const uint4 four = delegates[at / 4 + i];
      best.push_four(i, make_uint4(ordered(4 * i, four.x), ordered(4 * i + 1, four.y),
                                   ordered(4 * i + 2, four.z), ordered(4 * i + 3, four.w)));
    }
    best.end(n, [&](int i) { return at + i; });
  }
  for (int i = threadIdx.x;
       i < (blocks + kTileDelegates - 1) / kTileDelegates * (kTileDelegates / 4);
       i += kSelectorThreads) {
    delegates[i] = make_uint4(kNotChosen, kNotChosen, kNotChosen, kNotChosen);
  }
  __syncthreads();
  best.for_each_by_index(p.k, [&](int64_t i, TopKEntry entry) {
    const uint32_t block = entry == 0 ? kNotChosen : static_cast<uint32_t>(entry_index(entry));
    const int64_t place = row * p.k + i;
    p.chosen[place] = block;
    if (entry != 0) p.delegates[row * p.blocks + block] = static_cast<uint32_t>(place);
  });
}

// The k best of a query's chosen blocks, sorted.
__global__ void __launch_bounds__(kSelectorThreads)
    clock_gsu_select_kernel(const __grid_constant__ ClockGsuManyParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x, q = p.round_begin + row;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, q));
  const uint32_t* const chosen = p.chosen + row * p.k;
  const float4* const scores = reinterpret_cast<const float4*>(p.block_scores) + row * p.k * 2;
  const int survivors = static_cast<int>(p.k) * kDelegateKeys;
  BlockSelector best(&shared, memory, plan);
  for (int at = 0; at < survivors; at += plan.capacity) {
    const int n = min(plan.capacity, survivors - at);
    best.begin();
    for (int i = threadIdx.x; i < n / 4; i += kSelectorThreads) {  // a half of a block
      const uint32_t block = chosen[(at + 4 * i) / kDelegateKeys];
      uint4 ordered = make_uint4(0, 0, 0, 0);
      if (block != kNotChosen) {
        const uint32_t m = block * kDelegateKeys + 4 * i % kDelegateKeys;
        const float4 four = scores[at / 4 + i];
        const auto of = [&](uint32_t index, float score) {
          const bool there = index < static_cast<uint32_t>(view.length) &&
                             (!p.search.filtered || is_there(p.search, view, index));
          return there ? ordered_score(score) : 0;
        };
        ordered =
            make_uint4(of(m, four.x), of(m + 1, four.y), of(m + 2, four.z), of(m + 3, four.w));
      }
      best.push_four(i, ordered);
    }
    best.end(n, [&](int i) {
      return chosen[(at + i) / kDelegateKeys] * kDelegateKeys + (at + i) % kDelegateKeys;
    });
  }
  best.write_sorted(p.k, p.scores + q * p.k, p.indices + q * p.k);
}

template <class Kernel>
cudaError_t launch_selection(Kernel* kernel, int64_t longest, const ClockGsuManyParams& p,
                             const DeviceLimits& device, CudaStream stream) {
  const SelectorPlan plan =
      plan_selector(longest, p.k, static_cast<int>(sizeof(BlockSelector::Shared)), device);
  const cudaError_t error = allow_all_shared(kernel, device);
  if (error != cudaSuccess) return error;
  kernel<<<grid_of(p.round_end - p.round_begin), kSelectorThreads, plan.bytes(), stream>>>(p, plan);
  return cudaGetLastError();
}

int64_t longest_of(const DeviceSearch& search) {
  const int64_t longest = search.layout == SearchLayout::kDense ? search.columns : search.positions;
  return longest < kMostBehaviours ? longest : kMostBehaviours;
}

// Whether a search is for sweeps, and they can read it, on this device. Of a ragged one the host
// does not know the counts; and what is scored how must not depend on the rest of the batch.
cudaError_t plan_sweeps(const DeviceSearch& search, bool* suits) {
  const Behaviours& b = search.behaviours;
  const bool many = search.layout == SearchLayout::kDense
                        ? search.candidates >= kFewestCandidates
                        : search.layout == SearchLayout::kRagged && search.query_offsets;
  *suits = false;
  if (!many || search.sequences == 0 || search.queries == 0 ||
      !aligned16(b.keys, b.key_row_stride, b.dim, b.dtype) || search.sequence_bytes % 16 != 0 ||
      b.dim == 0 || b.dim * size_of(b.dtype) > kMostRowBytes ||
      search.table_rows > kMostTableRows) {
    return cudaSuccess;
  }
  cudaFuncAttributes code;
  const cudaError_t error = cudaFuncGetAttributes(&code, clock_gsu_choose_kernel);
  *suits = error == cudaSuccess && code.ptxVersion >= 80;
  return error;
}

int launch_sweep(const ClockGsuManyParams& p, Sweep sweep, CudaStream stream) {
  switch (p.search.behaviours.dtype) {
    case DType::kFloat32:
      return launch_sweep_fp32(p, sweep, stream);
    case DType::kFloat16:
      return launch_sweep_fp16(p, sweep, stream);
    default:
      return launch_sweep_bf16(p, sweep, stream);
  }
}

// Queries [begin, end) are those of the round.
void set_round(int64_t begin, int64_t end, ClockGsuManyParams* p) {
  p->round_begin = begin;
  p->round_end = end;
  if (p->search.layout == SearchLayout::kDense) {
    p->first_sequence = begin / p->search.candidates;
    p->round_sequences = (end - 1) / p->search.candidates - p->first_sequence + 1;
  } else {
    p->first_sequence = 0;
    p->round_sequences = p->search.sequences;
  }
}

}  // namespace

int plan_clock_gsu_many(const DeviceSearch& search, int64_t k, ClockGsuManyPlan* plan) {
  *plan = {};
  if (k == 0) return cudaSuccess;
  if (const int error = plan_sweeps(search, &plan->suits)) return error;
  if (!plan->suits) return cudaSuccess;
  plan->blocks = (longest_of(search) + kTileKeys - 1) / kTileKeys * kTileDelegates;
  const int64_t words = plan->blocks + k * (1 + kDelegateKeys);
  const int64_t most = kWorkspaceWords / words < 1 ? 1 : kWorkspaceWords / words;
  plan->round_queries = search.queries < most ? search.queries : most;
  plan->workspace_words = plan->round_queries * words;
  // A ragged query has room for all positions, whosever they are: batches of very many sequences
  // would take many rounds of little work, each with a thread block for every sequence.
  if (search.layout == SearchLayout::kRagged && plan->round_queries < search.queries) {
    plan->suits &=
        plan->round_queries >= kFewestOfARound && search.sequences <= 4 * plan->round_queries;
  }
  return cudaSuccess;
}

int launch_clock_gsu_many(const DeviceSearchTopK& params, const ClockGsuManyPlan& plan,
                          void* workspace, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const DeviceSearch& search = params.search;
  ClockGsuManyParams p{};
  p.search = search;
  p.k = params.k;
  p.multiprocessors = device.multiprocessors;
  p.blocks = static_cast<unsigned>(plan.blocks);
  // Whole sectors first.
  p.delegates = static_cast<uint32_t*>(workspace);
  p.block_scores = reinterpret_cast<float*>(p.delegates + plan.round_queries * plan.blocks);
  p.chosen =
      reinterpret_cast<uint32_t*>(p.block_scores + plan.round_queries * params.k * kDelegateKeys);
  p.scores = params.scores;
  p.indices = params.indices;
  for (int64_t begin = 0; begin < search.queries; begin = p.round_end) {
    const int64_t left = search.queries - begin;
    set_round(begin, begin + (left < plan.round_queries ? left : plan.round_queries), &p);
    p.places = static_cast<uint32_t>((p.round_end - begin) * p.k);
    int error = launch_sweep(p, Sweep::kDelegates, stream);
    if (error == 0) {
      error = launch_selection(clock_gsu_choose_kernel, plan.blocks, p, device, stream);
    }
    if (error == 0) error = launch_sweep(p, Sweep::kScores, stream);
    if (error == 0) {
      error =
          launch_selection(clock_gsu_select_kernel, params.k * kDelegateKeys, p, device, stream);
    }
    if (error != 0) return error;
  }
  return cudaSuccess;
}

int plan_gsu_score_many(const DeviceSearch& search, bool* suits) {
  const cudaError_t error = plan_sweeps(search, suits);
  *suits &= search.queries <= kMostBehaviours;
  return error;
}

int launch_gsu_score_many(const DeviceSearch& search, float* scores, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  ClockGsuManyParams p{};
  p.search = search;
  p.multiprocessors = device.multiprocessors;
  p.scores = scores;
  set_round(0, search.queries, &p);
  return launch_sweep(p, Sweep::kAll, stream);
}

}  // namespace longclock
