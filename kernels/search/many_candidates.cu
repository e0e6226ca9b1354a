// SPDX-License-Identifier: Apache-2.0
// What the sweeps of sweep.cuh leave to choose from, a block a query; and the launches.
#include "longclock/common/launch.cuh"
#include "longclock/search/candidate_tile.cuh"
#include "longclock/search/key_stages.cuh"
#include "longclock/search/many_candidates.h"
#include "longclock/search/row_form.cuh"
#include "longclock/search/sequence_view.cuh"
#include "longclock/selection/block_selector.cuh"

namespace longclock {
namespace {

// Fewer candidates a sequence fill so little of a tile that a block for each of them is faster.
constexpr int64_t kMinCandidates = 16;
constexpr int kMaxRowBytes = 512;
// The sweeps know rows of a table by 32 bits, of which one value is none.
constexpr int64_t kMaxTableRows = 0xffffffff;
constexpr int64_t kWorkspaceWords = int64_t{64} << 20;  // 256 MB, or one query's where that is more
constexpr int64_t kMinTaskQueries = 512;                // queries, ragged
// The sweeps write delegates of whole tiles.
constexpr int kTileDelegates = kTileKeys / kDelegateKeys;

// The k best blocks of a query, in order of block: their delegates become their places.
__global__ void __launch_bounds__(kSelectorThreads)
    sweep_choose_kernel(const __grid_constant__ SweepParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, p.query_begin + row));
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
    sweep_select_kernel(const __grid_constant__ SweepParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x, q = p.query_begin + row;
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
          const bool valid = index < static_cast<uint32_t>(view.length) &&
                             (!p.search.filtered || is_valid(p.search, view, index));
          return valid ? ordered_score(score) : 0;
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
cudaError_t launch_selection(Kernel* kernel, int64_t longest, const SweepParams& p,
                             const DeviceLimits& device, CudaStream stream) {
  const SelectorPlan plan =
      plan_selector(longest, p.k, static_cast<int>(sizeof(BlockSelector::Shared)), device);
  const cudaError_t error = allow_all_shared(kernel, device);
  if (error != cudaSuccess) return error;
  kernel<<<grid_of(p.query_end - p.query_begin), kSelectorThreads, plan.bytes(), stream>>>(p, plan);
  return cudaGetLastError();
}

int64_t longest_of(const DeviceSearchParams& search) {
  const int64_t longest = search.longest();
  return longest < kMaxBehaviours ? longest : kMaxBehaviours;
}

// Whether a search is for sweeps, and they can read it, on this device. Of a flat one the host
// does not know the counts; and what is scored how must not depend on the rest of the batch.
cudaError_t plan_sweeps(const DeviceSearchParams& search, bool* supported) {
  const Behaviours& b = search.behaviours;
  const bool many = search.layout == SearchLayout::kDense ? search.candidates >= kMinCandidates
                                                          : static_cast<bool>(search.query_offsets);
  *supported = false;
  if (!many || search.sequences == 0 || search.queries == 0 || !search_is_aligned(search) ||
      search.query_dim == 0 ||
      search.query_dim * size_of(b.dtype) >
          (b.feature_count > 0 ? kMaxFeatureRowBytes : kMaxRowBytes) ||
      search.table_rows > kMaxTableRows) {
    return cudaSuccess;
  }
  for (int f = 0; f < b.feature_count; ++f) {
    const int64_t rows = b.features[f].ids ? b.features[f].table_rows : search.positions;
    if (rows > kMaxTableRows) return cudaSuccess;
  }
  cudaFuncAttributes code;
  const cudaError_t error = cudaFuncGetAttributes(&code, sweep_choose_kernel);
  *supported = error == cudaSuccess && code.ptxVersion >= 80;
  return error;
}

int launch_sweep(const SweepParams& p, Sweep sweep, CudaStream stream) {
  switch (p.search.behaviours.dtype) {
    case DType::kFloat32:
      return launch_sweep_fp32(p, sweep, stream);
    case DType::kFloat16:
      return launch_sweep_fp16(p, sweep, stream);
    default:
      return launch_sweep_bf16(p, sweep, stream);
  }
}

// Queries [begin, end) are those of the task.
void set_task(int64_t begin, int64_t end, SweepParams* p) {
  p->query_begin = begin;
  p->query_end = end;
  if (p->search.layout == SearchLayout::kDense) {
    p->first_sequence = begin / p->search.candidates;
    p->task_sequences = (end - 1) / p->search.candidates - p->first_sequence + 1;
  } else {
    p->first_sequence = 0;
    p->task_sequences = p->search.sequences;
  }
}

}  // namespace

int plan_sweep_topk(const DeviceSearchParams& search, int64_t k, SweepPlan* plan) {
  *plan = {};
  if (k == 0) return cudaSuccess;
  if (const int error = plan_sweeps(search, &plan->supported)) return error;
  if (!plan->supported) return cudaSuccess;
  plan->blocks = (longest_of(search) + kTileKeys - 1) / kTileKeys * kTileDelegates;
  const int64_t words = plan->blocks + k * (1 + kDelegateKeys);
  const int64_t most = kWorkspaceWords / words < 1 ? 1 : kWorkspaceWords / words;
  plan->task_queries = search.queries < most ? search.queries : most;
  plan->workspace_words = plan->task_queries * words;
  // A query of a flat layout has room for all positions, whosever they are: batches of very many
  // sequences would take many tasks of little work, each with a thread block for every sequence.
  if (search.layout != SearchLayout::kDense && plan->task_queries < search.queries) {
    plan->supported &=
        plan->task_queries >= kMinTaskQueries && search.sequences <= 4 * plan->task_queries;
  }
  return cudaSuccess;
}

int launch_sweep_topk(const DeviceSearchTopKParams& params, const SweepPlan& plan, void* workspace,
                      CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const DeviceSearchParams& search = params.search;
  SweepParams p{};
  p.search = search;
  p.k = params.k;
  p.multiprocessors = device.multiprocessors;
  p.blocks = static_cast<unsigned>(plan.blocks);
  // Whole sectors first.
  p.delegates = static_cast<uint32_t*>(workspace);
  p.block_scores = reinterpret_cast<float*>(p.delegates + plan.task_queries * plan.blocks);
  p.chosen =
      reinterpret_cast<uint32_t*>(p.block_scores + plan.task_queries * params.k * kDelegateKeys);
  p.scores = params.scores;
  p.indices = params.indices;
  for (int64_t begin = 0; begin < search.queries; begin = p.query_end) {
    const int64_t left = search.queries - begin;
    set_task(begin, begin + (left < plan.task_queries ? left : plan.task_queries), &p);
    p.places = static_cast<uint32_t>((p.query_end - begin) * p.k);
    int error = launch_sweep(p, Sweep::kDelegates, stream);
    if (error == 0) {
      error = launch_selection(sweep_choose_kernel, plan.blocks, p, device, stream);
    }
    if (error == 0) error = launch_sweep(p, Sweep::kScores, stream);
    if (error == 0) {
      error = launch_selection(sweep_select_kernel, params.k * kDelegateKeys, p, device, stream);
    }
    if (error != 0) return error;
  }
  return cudaSuccess;
}

int plan_sweep_scores(const DeviceSearchParams& search, bool* supported) {
  const cudaError_t error = plan_sweeps(search, supported);
  *supported &= search.queries <= kMaxBehaviours;
  return error;
}

int launch_sweep_scores(const DeviceSearchParams& search, float* scores, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  SweepParams p{};
  p.search = search;
  p.multiprocessors = device.multiprocessors;
  p.scores = scores;
  set_task(0, search.queries, &p);
  return launch_sweep(p, Sweep::kAll, stream);
}

}  // namespace longclock
