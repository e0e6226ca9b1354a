// SPDX-License-Identifier: Apache-2.0
// What the sweeps of sweep.cuh leave to choose from, a warp a query, or a block where it is much;
// and the launches.
#include "longclock/common/launch.cuh"
#include "longclock/common/second_level_cache.h"
#include "longclock/search/byte_candidate_tile.cuh"
#include "longclock/search/key_stages.cuh"
#include "longclock/search/many_candidates.h"
#include "longclock/search/row_form.cuh"
#include "longclock/search/sequence_view.cuh"
#include "longclock/selection/block_selector.cuh"
#include "longclock/selection/warp_selector.cuh"

namespace longclock {
namespace {

// Fewer candidates a sequence fill so little of a tile that a block for each of them is faster.
constexpr int64_t kMinCandidates = 16;
// The sweeps know rows of a table by 32 bits, of which one value is none.
constexpr int64_t kMaxTableRows = 0xffffffff;
constexpr int64_t kWorkspaceWords = int64_t{64} << 20;  // 256 MB, or one query's where that is more
constexpr int64_t kMinTaskQueries = 512;                // queries, ragged
// The sweeps write delegates of whole tiles.
constexpr int kTileDelegates = kTileKeys / kDelegateKeys;

__device__ __forceinline__ unsigned blocks_of(const SequenceView& view) {
  return (static_cast<unsigned>(view.length) + kDelegateKeys - 1) / kDelegateKeys;
}

// Whole tiles of the delegates of a query that has `blocks`, by threads that step by `step`, where
// a second sweep reads what takes their place.
__device__ __forceinline__ void forget_delegates(const SweepParams& p, uint4* delegates,
                                                 unsigned blocks, unsigned thread, unsigned step) {
  if (p.stored != nullptr) return;
  const unsigned tiles = (blocks + kTileDelegates - 1) / kTileDelegates;
  for (unsigned i = thread; i < tiles * (kTileDelegates / 4); i += step) {
    delegates[i] = make_uint4(kNotChosen, kNotChosen, kNotChosen, kNotChosen);
  }
}

// Delegates 4 i to 4 i + 3 of n as a selection orders them. Those of whole tiles are written.
__device__ __forceinline__ uint4 ordered_delegates(const uint4* delegates, int i, int n) {
  if (4 * i >= n) return make_uint4(0, 0, 0, 0);
  const auto ordered = [](uint32_t bits) {
    return bits == kNobody ? 0 : ordered_score(__uint_as_float(bits));
  };
  const uint4 four = delegates[i];
  return make_uint4(ordered(four.x), ordered(four.y), ordered(four.z), ordered(four.w));
}

// The i-th of the chosen blocks of a query, or none; and its place, for a second sweep.
__device__ __forceinline__ void write_chosen(const SweepParams& p, int64_t row, int64_t i,
                                             uint32_t block) {
  const int64_t place = row * p.kept + i;
  p.chosen[place] = block;
  if (p.stored != nullptr || block == kNotChosen) return;
  p.delegates[row * p.blocks + block] = static_cast<uint32_t>(place);
}

// The scores of the half i of the chosen blocks of a query, as a selection orders them: 0 where one
// is not valid.
__device__ __forceinline__ uint4 ordered_survivors(const SweepParams& p, const SequenceView& view,
                                                   int64_t row, int i) {
  const uint32_t block = p.chosen[row * p.kept + 4 * i / kDelegateKeys];
  if (block == kNotChosen) return make_uint4(0, 0, 0, 0);
  const uint32_t m = block * kDelegateKeys + 4 * i % kDelegateKeys;
  const float4* const fours =
      p.stored == nullptr
          ? reinterpret_cast<const float4*>(p.block_scores) + row * p.kept * 2 + i
          : reinterpret_cast<const float4*>(p.stored) + (row * p.blocks + block) * 2 + i % 2;
  const float4 four = *fours;
  const auto ordered = [&](uint32_t index, float score) {
    const bool valid = index < static_cast<uint32_t>(view.length) &&
                       (!p.search.filtered || is_valid(p.search, view, index));
    return valid ? ordered_score(score) : 0;
  };
  return make_uint4(ordered(m, four.x), ordered(m + 1, four.y), ordered(m + 2, four.z),
                    ordered(m + 3, four.w));
}

// Places of survivors of a query.
__device__ __forceinline__ int survivors_of(const SweepParams& p, const SequenceView& view) {
  return static_cast<int>(min(p.kept, blocks_of(view))) * kDelegateKeys;
}

// Where the survivor at a place lies in the sequence.
__device__ __forceinline__ unsigned index_of_survivor(const SweepParams& p, int64_t row, int at) {
  return p.chosen[row * p.kept + at / kDelegateKeys] * kDelegateKeys + at % kDelegateKeys;
}

// The k best blocks of a query, in order of block: their delegates become their places.
__global__ void __launch_bounds__(kWarpSelectorThreads)
    sweep_choose_by_warp_kernel(const __grid_constant__ SweepParams p) {
  using Selector = WarpSelector<kMaxWarpScores / (4 * kWarp)>;
  __shared__ Selector::Shared shared[kWarpSelectorWarps];
  const int64_t row = int64_t{blockIdx.x} * kWarpSelectorWarps + warp_index();
  if (p.task.begin + row >= p.task.end) return;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, p.task.begin + row));
  const int blocks = static_cast<int>(blocks_of(view)), kept = static_cast<int>(p.kept);
  uint4* const delegates = reinterpret_cast<uint4*>(p.delegates + row * p.blocks);
  Selector best(shared + warp_index(), kept, blocks,
                [&](int i) { return ordered_delegates(delegates, i, blocks); });
  best.take(best.bound());
  best.keep_best();
  forget_delegates(p, delegates, blocks, lane_index(), kWarp);
  __syncwarp();
  for (int i = lane_index(); i < kept; i += kWarp) {
    write_chosen(p, row, i, i < best.count() ? best.place(i) : kNotChosen);
  }
}

// The k best of a query's chosen blocks, sorted.
__global__ void __launch_bounds__(kWarpSelectorThreads)
    sweep_select_by_warp_kernel(const __grid_constant__ SweepParams p) {
  using Selector = WarpSelector<kMaxWarpK * kDelegateKeys / (4 * kWarp)>;
  __shared__ Selector::Shared shared[kWarpSelectorWarps];
  const int64_t row = int64_t{blockIdx.x} * kWarpSelectorWarps + warp_index();
  const int64_t q = p.task.begin + row;
  if (q >= p.task.end) return;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, q));
  const int k = static_cast<int>(p.k), survivors = survivors_of(p, view);
  Selector best(shared + warp_index(), k, survivors, [&](int i) {
    return 4 * i < survivors ? ordered_survivors(p, view, row, i) : make_uint4(0, 0, 0, 0);
  });
  best.take(survivors < k * kDelegateKeys ? 1 : best.bound_of_blocks());
  best.write_sorted(p.scores + q * p.k, p.indices + q * p.k,
                    [&](int at) { return index_of_survivor(p, row, at); });
}

// The same by a block a query, of any number of blocks and k.
__global__ void __launch_bounds__(kSelectorThreads)
    sweep_choose_kernel(const __grid_constant__ SweepParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, p.task.begin + row));
  const int blocks = static_cast<int>(blocks_of(view));
  uint4* const delegates = reinterpret_cast<uint4*>(p.delegates + row * p.blocks);
  BlockSelector best(&shared, memory, plan);
  for (int at = 0; at < blocks; at += plan.capacity) {
    const int n = min(plan.capacity, blocks - at);
    best.begin();
#pragma unroll 2
    for (int i = threadIdx.x; i < best.places(n) / 4; i += kSelectorThreads) {
      best.push_four(i, ordered_delegates(delegates + at / 4, i, n));
    }
    best.end(n, [&](int i) { return at + i; });
  }
  forget_delegates(p, delegates, blocks, threadIdx.x, kSelectorThreads);
  __syncthreads();
  best.for_each_by_index(p.kept, [&](int64_t i, TopKEntry entry) {
    write_chosen(p, row, i, entry == 0 ? kNotChosen : static_cast<uint32_t>(entry_index(entry)));
  });
}

__global__ void __launch_bounds__(kSelectorThreads, 4)
    sweep_select_kernel(const __grid_constant__ SweepParams p, const SelectorPlan plan) {
  extern __shared__ uint4 memory[];
  __shared__ BlockSelector::Shared shared;
  const int64_t row = blockIdx.x, q = p.task.begin + row;
  const SequenceView view = view_sequence(p.search, sequence_of(p.search, q));
  const int survivors = survivors_of(p, view);
  BlockSelector best(&shared, memory, plan);
  for (int at = 0; at < survivors; at += plan.capacity) {
    const int n = min(plan.capacity, survivors - at);
    best.begin();
    for (int i = threadIdx.x; i < n / 4; i += kSelectorThreads) {
      best.push_four(i, ordered_survivors(p, view, row, at / 4 + i));
    }
    best.end(n, [&](int i) { return index_of_survivor(p, row, at + i); });
  }
  best.write_sorted(p.k, p.scores + q * p.k, p.indices + q * p.k);
}

// A selection of the best k of up to `longest` places a query, by a warp each where it can.
template <class WarpKernel, class BlockKernel>
cudaError_t launch_selection(WarpKernel* by_warp, BlockKernel* by_block, int64_t longest, int64_t k,
                             const SweepParams& p, const DeviceLimits& device, CudaStream stream) {
  const int64_t queries = p.task.end - p.task.begin;
  if (k <= kMaxWarpK && longest <= kMaxWarpScores) {
    const int64_t blocks = (queries + kWarpSelectorWarps - 1) / kWarpSelectorWarps;
    by_warp<<<grid_of(blocks), kWarpSelectorThreads, 0, stream>>>(p);
    return cudaGetLastError();
  }
  const SelectorPlan plan =
      plan_selector(longest, k, static_cast<int>(sizeof(BlockSelector::Shared)), device);
  const cudaError_t error = allow_all_shared(by_block, device);
  if (error != cudaSuccess) return error;
  by_block<<<grid_of(queries), kSelectorThreads, plan.bytes(), stream>>>(p, plan);
  return cudaGetLastError();
}

// Times of the sequences that `queries` of a search may look at, in whole sectors; 0 where they are
// unknown or too many, and each sweep evaluates s.
int64_t times_of(const DeviceSearchParams& search, int64_t queries) {
  if (search.layout == SearchLayout::kWindows) return 0;
  int64_t times = search.positions;
  if (search.layout == SearchLayout::kDense) {
    const int64_t most = (queries - 1) / search.candidates + 2;
    times = search.columns * (most < search.sequences ? most : search.sequences);
  }
  return times <= kWorkspaceWords / 2 ? (times + 7) / 8 * 8 : 0;
}

int64_t longest_of(const DeviceSearchParams& search) {
  const int64_t longest = search.longest();
  return longest < kMaxBehaviours ? longest : kMaxBehaviours;
}

// Puts the candidates of the task where the sweeps find them; packed: room for them, if they are.
int give_candidates(SweepParams& p, void* packed, CudaStream stream) {
  p.candidates = static_cast<const char*>(p.search.query) + p.task.begin * p.rows.candidate_bytes;
  if (!p.rows.packed) return cudaSuccess;
  p.candidates = static_cast<const char*>(packed);
  return launch_pack_candidates(p.search, p.task, p.rows, packed, stream);
}

// Rows in bytes come whole alone, and not too wide for candidates in registers.
bool fit_registers(const DeviceSearchParams& search) {
  const DType by = search.behaviours.query_dtype;
  const int most = by == DType::kInt8       ? kMostColumns<int8_t>
                   : by == DType::kBFloat16 ? kMostColumns<BFloat16>
                                            : kMostColumns<float>;
  return search_is_aligned(search) && search.query_dim <= most;
}

// Whether a search is for sweeps on this device. Of a flat one the host does not know the counts;
// and what is scored how must not depend on the rest of the batch.
cudaError_t plan_sweeps(const DeviceSearchParams& search, SweepPlan* plan) {
  const Behaviours& b = search.behaviours;
  const bool many = search.layout == SearchLayout::kDense ? search.candidates >= kMinCandidates
                                                          : static_cast<bool>(search.query_offsets);
  *plan = {};
  if (!many || search.sequences == 0 || search.queries == 0 || search.query_dim == 0 ||
      (is_byte(b.dtype) && !fit_registers(search)) || search.table_rows > kMaxTableRows) {
    return cudaSuccess;
  }
  for (int f = 0; f < b.feature_count; ++f) {
    const int64_t rows = b.features[f].ids ? b.features[f].table_rows : search.positions;
    if (rows > kMaxTableRows) return cudaSuccess;
  }
  plan->rows = plan_sweep_rows(search);
  return static_cast<cudaError_t>(has_async_copy(sweep_choose_kernel, &plan->supported));
}

// Whether all scores of a search stay in the second-level cache, beside what is read meanwhile.
int are_cached(const DeviceSearchParams& search, int64_t blocks, bool* cached) {
  int bytes = 0;
  const int error = second_level_cache(&bytes);
  const int64_t scores = search.queries * blocks * kDelegateKeys;
  *cached = scores * static_cast<int64_t>(sizeof(float)) <= bytes / 2;
  return error;
}

int launch_sweep(const SweepParams& p, Sweep sweep, CudaStream stream) {
  switch (p.search.behaviours.dtype) {
    case DType::kFloat32:
      return launch_sweep_fp32(p, sweep, stream);
    case DType::kFloat16:
      return launch_sweep_fp16(p, sweep, stream);
    case DType::kInt8:
      return p.search.behaviours.query_dtype == DType::kInt8
                 ? launch_sweep_int8(p, sweep, stream)
                 : launch_sweep_int8_floats(p, sweep, stream);
    case DType::kFloat8:
      return launch_sweep_float8(p, sweep, stream);
    default:
      return launch_sweep_bf16(p, sweep, stream);
  }
}

}  // namespace

int plan_sweep_topk(const DeviceSearchParams& search, int64_t k, SweepPlan* plan) {
  *plan = {};
  if (k == 0) return cudaSuccess;
  if (const int error = plan_sweeps(search, plan)) return error;
  plan->supported &= longest_of(search) > 0;
  if (!plan->supported) return cudaSuccess;
  plan->blocks = (longest_of(search) + kTileKeys - 1) / kTileKeys * kTileDelegates;
  plan->kept = k < plan->blocks ? k : plan->blocks;
  if (search.behaviours.dtype == DType::kFloat32) {
    if (const int error = are_cached(search, plan->blocks, &plan->stored)) return error;
  }
  const int64_t words = plan->blocks + plan->kept +
                        (plan->stored ? plan->blocks : plan->kept) * kDelegateKeys +
                        plan->rows.packed_bytes() / 4;
  const auto task_queries = [&] {
    const int64_t fit = (kWorkspaceWords - plan->times) / words, most = fit < 1 ? 1 : fit;
    return search.queries < most ? search.queries : most;
  };
  plan->times = plan->stored ? 0 : times_of(search, task_queries());
  plan->task_queries = task_queries();
  plan->workspace_words = plan->task_queries * words + plan->times;
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
  p.rows = plan.rows;
  p.k = params.k;
  p.multiprocessors = device.multiprocessors;
  p.blocks = static_cast<unsigned>(plan.blocks);
  p.kept = static_cast<unsigned>(plan.kept);
  // Whole sectors first.
  float* const times = static_cast<float*>(workspace);
  p.times = plan.times > 0 ? times : nullptr;
  char* const packed = reinterpret_cast<char*>(times + plan.times);
  p.delegates = reinterpret_cast<uint32_t*>(packed + plan.task_queries * plan.rows.packed_bytes());
  float* const kept_scores =
      reinterpret_cast<float*>(p.delegates + plan.task_queries * plan.blocks);
  (plan.stored ? p.stored : p.block_scores) = kept_scores;
  const int64_t of_query = (plan.stored ? plan.blocks : plan.kept) * kDelegateKeys;
  p.chosen = reinterpret_cast<uint32_t*>(kept_scores + plan.task_queries * of_query);
  p.scores = params.scores;
  p.indices = params.indices;
  for (int64_t begin = 0; begin < search.queries; begin = p.task.end) {
    const int64_t left = search.queries - begin;
    p.task =
        query_task(search, begin, begin + (left < plan.task_queries ? left : plan.task_queries));
    p.places = static_cast<uint32_t>((p.task.end - begin) * plan.kept);
    int error = give_candidates(p, packed, stream);
    if (error == 0) {
      error = launch_sweep(p, plan.stored ? Sweep::kStored : Sweep::kDelegates, stream);
    }
    if (error == 0) {
      error = launch_selection(sweep_choose_by_warp_kernel, sweep_choose_kernel, plan.blocks,
                               plan.kept, p, device, stream);
    }
    if (error == 0 && !plan.stored) error = launch_sweep(p, Sweep::kScores, stream);
    if (error == 0) {
      error = launch_selection(sweep_select_by_warp_kernel, sweep_select_kernel,
                               plan.kept * kDelegateKeys, params.k, p, device, stream);
    }
    if (error != 0) return error;
  }
  return cudaSuccess;
}

int plan_sweep_scores(const DeviceSearchParams& search, SweepPlan* plan) {
  const cudaError_t error = plan_sweeps(search, plan);
  plan->supported &= search.queries <= kMaxBehaviours;
  plan->task_queries = search.queries;
  plan->workspace_words = plan->task_queries * plan->rows.packed_bytes() / 4;
  return error;
}

int launch_sweep_scores(const DeviceSearchParams& search, const SweepPlan& plan, void* workspace,
                        float* scores, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  SweepParams p{};
  p.search = search;
  p.rows = plan.rows;
  p.multiprocessors = device.multiprocessors;
  p.scores = scores;
  p.task = query_task(search, 0, search.queries);
  const int error = give_candidates(p, workspace, stream);
  return error == 0 ? launch_sweep(p, Sweep::kAll, stream) : error;
}

}  // namespace longclock
