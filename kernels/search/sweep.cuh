// SPDX-License-Identifier: Apache-2.0
// A sweep of many candidates over the keys of their sequence, or of a part of it: one block for
// each 64 or 128 candidates and part. Tensor-core-bound: candidates stay in registers, tiles of 64
// keys come through shared memory once for all of them, and of a search's sweeps what is written is
// an eighth of the scores, or less. Of a block's four warps two share the candidates, two the keys.
// Where rows come in panels, the sums of a tile stay in registers, and of the candidates a panel.
#pragma once

#include "longclock/common/launch.cuh"
#include "longclock/search/key_stages.cuh"
#include "longclock/search/many_candidates.h"
#include "longclock/search/panel_stages.cuh"
#include "longclock/search/sweep_candidates.cuh"
#include "longclock/search/sweep_output.cuh"
#include "longclock/search/sweep_parts.h"

namespace longclock {

template <class T, int kRowBytes, Sweep kSweep>
class CandidateSweep {
 public:
  using Tile = CandidateTile<T, kRowBytes>;

  // scales: of the block's candidates, where keys are in bytes.
  __device__ CandidateSweep(const SweepParams& p, const CandidateRange& candidates,
                            const SequenceView& view, const float* scales)
      : p_(p),
        view_(view),
        row_(static_cast<unsigned>(candidates.query - p.task.begin) + first_candidate()),
        count_(candidates.count - first_candidate()),
        row_place_(opaque(warp_index() % 2 * kWarpKeys * kRowBytes + Tile::lane_place())),
        scales_(scales) {}

  // The candidates of this warp, of those whose rows of shared memory begin at `rows`.
  __device__ void load(uint32_t rows) {
    tile_.load(rows + warp_index() / 2 * Tile::kWarpCandidates * Tile::kCandidateBytes);
  }

  // Whether this warp has any candidates.
  __device__ bool has_work() const { return count_ + lane_index() / 4 > 0; }

  // A tile whose rows of shared memory begin at `rows`, and of this warp's keys in it: the first
  // one's block, s, and which are valid. kFull: all are, and scores lie in whole pieces of 16
  // bytes.
  template <bool kFull>
  __device__ void tile(uint32_t rows, unsigned first_block, const float* s, uint32_t valid) {
    const LaneBlock lane = lane_block<kFull>(first_block, s, valid);
    SweepOutput<T, kRowBytes, kSweep, kFull> output(lane);
    if (!output.wanted()) return;
    // One step after the other where registers are short.
#pragma unroll(kFull&& kSweep == Sweep::kScores && !kInBytes<T> ? Tile::kSteps : 1)
    for (int step = 0; step < Tile::kSteps; ++step) {
      typename Tile::Products scores;
      tile_.multiply(rows + row_place_, step, scores);
      hand_over<kFull>(lane, step, scores, output);
    }
    output.end();
  }

  // The same of a tile whose panels are the next ones of `keys`. All threads.
  template <bool kFull, class Stages>
  __device__ void tile_of_panels(Stages& keys, unsigned first_block, const float* s,
                                 uint32_t valid) {
    const LaneBlock lane = lane_block<kFull>(first_block, s, valid);
    SweepOutput<T, kRowBytes, kSweep, kFull> output(lane);
    const bool wanted = has_work() && output.wanted();
    typename Tile::Sums sums[Tile::kSteps] = {};
#pragma unroll 1
    for (int panel = 0; panel < p_.rows.panels; ++panel) {
      const uint32_t rows = keys.wait();
      if (!wanted) continue;
      load(rows + Stages::kKeyBytes);
#pragma unroll
      for (int step = 0; step < Tile::kSteps; ++step) {
        add_panel(rows + row_place_, step, sums[step]);
      }
    }
    if (!wanted) return;
#pragma unroll
    for (int step = 0; step < Tile::kSteps; ++step) {
      typename Tile::Products scores;
      Tile::arrange(sums[step], scores);
      hand_over<kFull>(lane, step, scores, output);
    }
    output.end();
  }

 private:
  // The lane's first, of those of the thread block.
  __device__ static int first_candidate() {
    return warp_index() / 2 * Tile::kWarpCandidates + Fragments::c_candidate(lane_index(), 0);
  }

  // Of this warp's keys of a tile.
  template <bool kFull>
  __device__ LaneBlock lane_block(unsigned first_block, const float* s, uint32_t valid) const {
    const int quad_lane = Fragments::c_column(lane_index(), 0) / 2;
    const uint32_t mine = kFull ? 0xff : valid >> (quad_lane * kDelegateKeys) & 0xff;
    return {p_, view_, row_, count_, first_block + quad_lane, mine, s + quad_lane * kDelegateKeys};
  }

  // Adds the products of the panel that is loaded. In fp32 panels are added up by themselves: sums
  // of tensor cores are cut off, not rounded, which shows where there are many.
  __device__ void add_panel(uint32_t row, int step, typename Tile::Sums& sums) const {
    if constexpr (sizeof(T) == 2) {
      tile_.add_products(row, step, sums);
    } else {
      typename Tile::Sums of_panel = {};
      tile_.add_products(row, step, of_panel);
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
#pragma unroll
        for (int i = 0; i < Tile::kStepKeys / 8 * 4; ++i) {
          sums[group][i / 4][i % 4] += of_panel[group][i / 4][i % 4];
        }
      }
    }
  }

  // Makes scores of the products of a step, for the output.
  template <bool kFull, class Output>
  __device__ void hand_over(const LaneBlock& lane, int step, typename Tile::Products& scores,
                            Output& output) const {
    const float* const s = lane.s + step * Tile::kLaneKeys;
    if constexpr (kInBytes<T>) {
      add_times_of_bytes(s, scores);
    } else {
      add_times(s, scores);
    }
    if (!kFull) hide_invalid(lane.valid >> (step * Tile::kLaneKeys), scores);
    output.add(step, scores);
  }

  // Scores of the lane's keys of a step.
  __device__ void add_times(const float* s, typename Tile::Products& scores) const {
    float times[Tile::kLaneKeys];
#pragma unroll
    for (int i = 0; i < Tile::kLaneKeys; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(s + i);
      times[i] = four.x;
      times[i + 1] = four.y;
      times[i + 2] = four.z;
      times[i + 3] = four.w;
    }
    Tile::for_each_candidate([&](int group, int half, int) {
#pragma unroll
      for (int i = 0; i < Tile::kLaneKeys; ++i) {
        scores[group][half][i] = fmaf(p_.search.scale, scores[group][half][i], times[i]);
      }
    });
  }

  // The same of keys in bytes, whose rows have a scale, as candidates do: read where they are
  // needed, for registers are short.
  __device__ void add_times_of_bytes(const float* s, typename Tile::Products& scores) const {
#pragma unroll
    for (int i = 0; i < Tile::kLaneKeys; ++i) {
      const float time = s[i], of_row = s[KeyStages<kRowBytes>::kScalesAfter + i];
      Tile::for_each_candidate([&](int group, int half, int at) {
        float& score = scores[group][half][i];
        score = fmaf(scales_[first_candidate() + at], __fmul_rn(score, of_row), time);
      });
    }
  }

  // -inf where none is valid.
  __device__ static void hide_invalid(uint32_t valid, typename Tile::Products& scores) {
    Tile::for_each_candidate([&](int group, int half, int) {
#pragma unroll
      for (int i = 0; i < Tile::kLaneKeys; ++i) {
        if ((valid >> i & 1) == 0) scores[group][half][i] = -INFINITY;
      }
    });
  }

  const SweepParams& p_;
  const SequenceView& view_;
  unsigned row_;         // of the lane's first candidate in the task: past the last as well
  int count_;            // candidates from the lane's first on
  uint32_t row_place_;   // of this lane's keys in a tile
  const float* scales_;  // of the block's candidates in shared memory, where keys are in bytes
  Tile tile_;
};

// -inf past the last behaviour: of dense rows; of a flat result that is too long.
__device__ __forceinline__ void fill_past(const SweepParams& p, const CandidateRange& candidates,
                                          const SequenceView& view, unsigned part, unsigned parts) {
  const DeviceSearchParams& search = p.search;
  const int64_t last = candidates.query + candidates.count - 1;
  const auto fill = [&](int64_t begin, int64_t end) {
    for (int64_t at = begin + view.length + part * kSweepThreads + threadIdx.x; at < end;
         at += parts * kSweepThreads) {
      p.scores[at] = -INFINITY;
    }
  };
  if (search.layout != SearchLayout::kDense) {
    if (last == search.queries - 1) fill(scores_of(search, last, view), search.score_count);
  } else if (view.length < search.columns) {
    for (int64_t q = candidates.query; q <= last; ++q) {
      fill(q * search.columns, (q + 1) * search.columns);
    }
  }
}

// Where s of a sequence lies that this block writes or reads, or none.
template <Sweep kSweep>
__device__ __forceinline__ float* times_of(const SweepParams& p, const CandidateRange& candidates,
                                           const SequenceView& view) {
  if (kSweep == Sweep::kAll || kSweep == Sweep::kStored || p.times == nullptr) return nullptr;
  if (kSweep == Sweep::kDelegates && !candidates.first) return nullptr;
  if (p.search.layout != SearchLayout::kDense) return p.times + view.position;
  return p.times + (candidates.sequence - p.task.first_sequence) * p.search.columns;
}

// kPanels: rows come in panels, and kRowBytes is what a row has of one.
template <class T, int kRowBytes, Sweep kSweep, bool kPanels>
using SweepStages = std::conditional_t<kPanels, PanelStages<T, kSweep == Sweep::kScores>,
                                       KeyStages<kRowBytes, kSweep == Sweep::kScores, kInBytes<T>>>;

template <class T, int kRowBytes, Sweep kSweep, bool kPanels = false>
__device__ __forceinline__ void sweep_part(const SweepParams& p, unsigned first_tile,
                                           unsigned tiles, unsigned parts, int stages) {
  using Stages = SweepStages<T, kRowBytes, kSweep, kPanels>;
  extern __shared__ __align__(1024) char memory[];
  __shared__ typename Stages::Shared shared;
  // Tiles of candidates are neighbours: they read the same keys at about the same time.
  const CandidateRange candidates = candidates_of(p.search, p.task, first_tile + blockIdx.x % tiles,
                                                  kBlockCandidates<T, kRowBytes>);
  if (candidates.count == 0) return;
  if (threadIdx.x == 0) {
    shared.view = view_sequence(p.search, candidates.sequence);
    read_query_clocks(p.search.clocks, p.search.behaviours.time.clocks, shared.view.query_time,
                      &shared.time);
    shared.times = times_of<kSweep>(p, candidates, shared.view);
  }
  load_time_mlps(p.search.behaviours.time.clock[0].mlp, p.search.behaviours.time.clocks,
                 &shared.time);
  __shared__ float scales[kInBytes<T> ? kBlockCandidates<T, kRowBytes> : 1];
  if constexpr (kInBytes<T>) {
    load_byte_candidates<T, kRowBytes>(p.search, candidates, memory, scales);
  } else if constexpr (!kPanels) {
    load_candidates<T, kRowBytes>(p.search, candidates, memory);
  }
  __syncthreads();
  if constexpr (kSweep == Sweep::kAll) {
    fill_past(p, candidates, shared.view, blockIdx.x / tiles, parts);
  }
  const unsigned length = static_cast<unsigned>(shared.view.length), part = blockIdx.x / tiles;
  const unsigned begin = part_begin(length, part, parts);
  const unsigned end = part_begin(length, part + 1, parts);
  if (begin == end) return;

  CandidateSweep<T, kRowBytes, kSweep> sweep(p, candidates, shared.view, scales);
  if constexpr (!kPanels) {
    sweep.load(shared_address(memory));
    __syncthreads();
  }
  Stages keys = [&] {
    if constexpr (kPanels) {
      return Stages(p, candidates, begin, end, &shared, memory, stages);
    } else {
      return Stages(p.search, begin, end, &shared, memory, stages);
    }
  }();
  keys.start();
  const int half = warp_index() % 2;
  const auto sweep_tile = [&]<bool kFull>(int tile) {
    const unsigned first_block = (begin + tile * kTileKeys + half * kWarpKeys) / kDelegateKeys;
    if constexpr (kPanels) {
      sweep.template tile_of_panels<kFull>(keys, first_block, keys.s(tile, half),
                                           keys.valid(tile, half));
    } else {
      const uint32_t stage = keys.wait(tile);
      if (!sweep.has_work()) return;
      sweep.template tile<kFull>(stage, first_block, keys.s(tile, half), keys.valid(tile, half));
    }
  };
  const int all = keys.tiles();
  const bool pieces = p.search.layout == SearchLayout::kDense && p.search.columns % 4 == 0;
  const int full = p.search.filtered || (kSweep == Sweep::kAll && !pieces)
                       ? 0
                       : static_cast<int>((end - begin) / kTileKeys);
  for (int tile = 0, pair = 0; tile < all; ++pair) {
    keys.begin_pair(pair);
    const int last = (pair + 1) * kPairTiles;
#pragma unroll 1
    for (; tile < min(full, last); ++tile) sweep_tile.template operator()<true>(tile);
#pragma unroll 1
    for (; tile < min(all, last); ++tile) sweep_tile.template operator()<false>(tile);
  }
}

template <class T, int kRowBytes, Sweep kSweep>
__global__ void __launch_bounds__(kSweepThreads, 2)
    sweep_kernel(const __grid_constant__ SweepParams p, const unsigned first_tile,
                 const unsigned tiles, const unsigned parts, const int stages) {
  if constexpr (kHasAsyncCopy) {
    sweep_part<T, kRowBytes, kSweep>(p, first_tile, tiles, parts, stages);
  }
}

// The same of rows that come in panels.
template <class T, Sweep kSweep>
__global__ void __launch_bounds__(kSweepThreads, 2)
    sweep_panels_kernel(const __grid_constant__ SweepParams p, const unsigned first_tile,
                        const unsigned tiles, const unsigned parts, const int stages) {
  if constexpr (kHasAsyncCopy) {
    sweep_part<T, kPanelBytes, kSweep, true>(p, first_tile, tiles, parts, stages);
  }
}

template <class T, int kRowBytes, Sweep kSweep, bool kPanels = false>
cudaError_t launch_sweep(const SweepParams& p, CudaStream stream) {
  constexpr int kCandidates = kBlockCandidates<T, kRowBytes>;
  using Stages = SweepStages<T, kRowBytes, kSweep, kPanels>;
  // Candidates pass through the stages' memory.
  static_assert(kCandidates * CandidateTile<T, kRowBytes>::kCandidateBytes <=
                Stages::kFewestStages * Stages::kTileBytes);
  const DeviceSearchParams& search = p.search;
  const int64_t queries = p.task.end - p.task.begin;
  const int64_t tiles = queries / kCandidates + p.task.sequences;
  // Ragged sequences are taken for equal, of which a task holds a few, and the longest for four
  // times as long.
  int64_t sequences = p.task.sequences, longest = search.columns;
  if (search.layout != SearchLayout::kDense) {
    const int64_t usual = queries * search.sequences / search.queries + 1;
    sequences = usual < sequences ? usual : sequences;
    longest = 4 * search.positions / search.sequences;
  }
  const unsigned parts = sweep_parts(queries / kCandidates + sequences, longest, p.multiprocessors);
  auto* kernel = sweep_kernel<T, kRowBytes, kSweep>;
  if constexpr (kPanels) kernel = sweep_panels_kernel<T, kSweep>;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return static_cast<cudaError_t>(error);
  const cudaError_t error = allow_all_shared(kernel, device);
  if (error != cudaSuccess) return error;
  const int more = Stages::feature_bytes(search);
  // Whether two blocks with so many stages fit a multiprocessor.
  const auto fit = [&](int stages) {
    const int each = stages * Stages::kTileBytes + more +
                     static_cast<int>(sizeof(typename Stages::Shared)) + device.shared_reserved;
    return 2 * each <= device.shared_per_multiprocessor;
  };
  // Where not even few do, many need not either.
  const bool most = fit(Stages::kMostStages) || !fit(Stages::kFewestStages);
  const int stages = most ? Stages::kMostStages : Stages::kFewestStages;
  const int bytes = stages * Stages::kTileBytes + more;
  // Queries and sequences are fewer than 2^31 each, so that tiles fit 32 bits.
  return static_cast<cudaError_t>(for_each_part(tiles, parts, [&](int64_t first, int64_t count) {
    kernel<<<grid_of(count * parts), kSweepThreads, bytes, stream>>>(
        p, static_cast<unsigned>(first), static_cast<unsigned>(count), parts, stages);
    return cudaGetLastError();
  }));
}

// For rows that come in panels, or of any whole number of 16-byte pieces up to kMostRowBytes.
template <class T, Sweep kSweep>
cudaError_t launch_sweep(const SweepParams& p, CudaStream stream) {
  if constexpr (!kInBytes<T>) {
    if (p.rows.panels > 0) return launch_sweep<T, kPanelBytes, kSweep, true>(p, stream);
  }
  const int64_t bytes = p.search.query_dim * static_cast<int64_t>(sizeof(T));
  if constexpr (kMostRowBytes<T> > 128) {
    if (bytes > 256) return launch_sweep<T, kMostRowBytes<T>, kSweep>(p, stream);
    if (bytes > 128) return launch_sweep<T, 256, kSweep>(p, stream);
  }
  return launch_sweep<T, 128, kSweep>(p, stream);
}

template <class T>
cudaError_t launch_sweep(const SweepParams& p, Sweep sweep, CudaStream stream) {
  switch (sweep) {
    case Sweep::kDelegates:
      return launch_sweep<T, Sweep::kDelegates>(p, stream);
    case Sweep::kScores:
      return launch_sweep<T, Sweep::kScores>(p, stream);
    case Sweep::kStored:
      if constexpr (sizeof(T) == 4) return launch_sweep<T, Sweep::kStored>(p, stream);
      return cudaErrorNotSupported;
    default:
      return launch_sweep<T, Sweep::kAll>(p, stream);
  }
}

}  // namespace longclock
