// SPDX-License-Identifier: Apache-2.0
// A sweep of many candidates over the keys of their sequence, or of a part of it: one block for
// each 64 or 128 candidates and part. Tensor-core-bound: candidates stay in registers, tiles of 64
// keys come through shared memory once for all of them, and of a search's sweeps what is written is
// an eighth of the scores, or less. Of a block's four warps two share the candidates, two the keys.
#pragma once

#include "longclock/common/launch.cuh"
#include "longclock/search/candidate_tile.cuh"
#include "longclock/search/key_stages.cuh"
#include "longclock/search/many_candidates.h"

namespace longclock {

// Candidates of one sequence, a block's.
struct CandidateRange {
  int64_t sequence;
  int64_t query;  // the first
  int count;
};

// The queries of the task that look at sequence s, as sequence_of() says.
__device__ __forceinline__ QueryRange task_queries_of(const SweepParams& p, int64_t s) {
  const QueryRange all = queries_of(p.search, s);
  const int64_t begin = s == 0 ? 0 : all.begin;
  const int64_t end = s == p.search.sequences - 1 ? p.search.queries : all.end;
  return {clamp(begin, p.query_begin, p.query_end), clamp(end, p.query_begin, p.query_end)};
}

__device__ __forceinline__ void check_queries_of(const DeviceSearchParams& p, int64_t s) {
  if (!p.query_offsets) return;
  const int64_t begin = p.query_offsets[s], end = p.query_offsets[s + 1];
  device_check(0 <= begin && begin <= end && end <= p.queries && (s > 0 || begin == 0) &&
                   (s < p.sequences - 1 || end == p.queries),
               "query_offsets must run from 0 to Q and not decrease", "search");
}

// The candidates of tile `tile` of a task. Sequence i of a task has its first tile at
// (its first query) / kCandidates + i, which leaves room for all of them, and some tiles empty.
template <int kCandidates>
__device__ __forceinline__ CandidateRange candidates_of(const SweepParams& p, int64_t tile) {
  struct FirstTiles {
    const SweepParams& p;
    __device__ int64_t operator[](int64_t i) const {
      const QueryRange queries = task_queries_of(p, p.first_sequence + i);
      return (queries.begin - p.query_begin) / kCandidates + i;
    }
  };
  const FirstTiles first{p};
  const int64_t i = find_range(first, p.task_sequences - 1, tile);
  if (p.search.check) check_queries_of(p.search, p.first_sequence + i);
  const QueryRange queries = task_queries_of(p, p.first_sequence + i);
  const int64_t begin = queries.begin + (tile - first[i]) * kCandidates;
  const int64_t left = queries.end - begin;
  return {p.first_sequence + i, begin, static_cast<int>(clamp(left, 0, kCandidates))};
}

template <class T, int kRowBytes>
constexpr int kBlockCandidates = 2 * CandidateTile<T, kRowBytes>::kWarpCandidates;

// Swizzled rows of the candidates in shared memory, zeros where there are none.
template <class T, int kRowBytes>
__device__ __forceinline__ void load_candidates(const DeviceSearchParams& p,
                                                const CandidateRange& candidates, char* rows) {
  constexpr int kPieces = kRowBytes / 16, kAll = kBlockCandidates<T, kRowBytes> * kPieces;
  const bool aligned = reinterpret_cast<uintptr_t>(p.query) % 16 == 0;
  const int dim = static_cast<int>(p.behaviours.dim);
  const auto place = [&](int i) { return rows + swizzled<kRowBytes>(i / kPieces, i % kPieces); };
  if (aligned && (sizeof(T) == 4 || !p.query_is_float)) {  // as they are, all copies in flight
    const T* const queries = static_cast<const T*>(p.query) + candidates.query * dim;
#pragma unroll 8
    for (int i = threadIdx.x; i < kAll; i += kSweepThreads) {
      const int row = i / kPieces, d = i % kPieces * kVector16<T>;
      const bool valid = row < candidates.count && d < dim;
      copy16_async(shared_address(place(i)), valid ? queries + row * dim + d : queries,
                   valid ? 16 : 0);
    }
    end_copy_group();
    wait_for_copies<0>();
    return;
  }
  for (int i = threadIdx.x; i < kAll; i += kSweepThreads) {
    const int row = i / kPieces, d = i % kPieces * kVector16<T>;
    const int64_t q = candidates.query + row;
    uint4 value = make_uint4(0, 0, 0, 0);
    if (row < candidates.count && d < dim) {
      value = aligned ? query_piece<T, true>(p, q, d) : query_piece<T, false>(p, q, d);
    }
    *reinterpret_cast<uint4*>(place(i)) = value;
  }
}

__device__ __forceinline__ float max_or_nan(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

// The plain product of one query with the keys of a block, for what three products of TF32 cannot
// do: they make NaN of an infinity. Returns the best score; out: the first `room`, or none.
__device__ __forceinline__ float exact_block(const DeviceSearchParams& p, const SequenceView& view,
                                             int64_t q, unsigned key, uint32_t valid,
                                             const float* s, float* out, int room = kDelegateKeys) {
  const int dim = static_cast<int>(p.behaviours.dim);
  const float* query = static_cast<const float*>(p.query) + q * dim;
  float best = -INFINITY;
#pragma unroll 1
  for (int i = 0; i < kDelegateKeys; ++i) {
    float score = -INFINITY;
    if ((valid >> i & 1) != 0) {
      score = s[i];
      if (score == score) {  // else the id may be unknown
        const char* row = p.behaviours.ids
                              ? static_cast<const char*>(p.behaviours.keys) +
                                    p.behaviours.ids[view.position + key + i] * p.row_bytes
                              : row_after(p, view.keys, key + i);
        float dot = 0.0f;
#pragma unroll 1
        for (int d = 0; d < dim; ++d) {
          dot = fmaf(query[d], __ldg(reinterpret_cast<const float*>(row) + d), dot);
        }
        score = fmaf(p.scale, dot, score);
      }
      best = max_or_nan(best, score);
    }
    if (out != nullptr && i < room) out[i] = score;
  }
  return best;
}

template <class T, int kRowBytes, Sweep kSweep>
class CandidateSweep {
 public:
  using Tile = CandidateTile<T, kRowBytes>;

  __device__ CandidateSweep(const SweepParams& p, const CandidateRange& candidates,
                            const SequenceView& view, uint32_t candidate_rows)
      : p_(p),
        view_(view),
        row_(static_cast<unsigned>(candidates.query - p.query_begin) + first_candidate()),
        count_(candidates.count - first_candidate()),
        row_place_(opaque(warp_index() % 2 * kWarpKeys * kRowBytes + Tile::lane_place())) {
    tile_.load(candidate_rows + warp_index() / 2 * Tile::kWarpCandidates * kRowBytes);
  }

  // Whether this warp has any candidates.
  __device__ bool has_work() const { return count_ + lane_index() / 4 > 0; }

  // A tile whose rows of shared memory begin at `rows`, and of this warp's keys in it: the first
  // one's block, s, and which are valid. kFull: all are, and scores lie in whole pieces of 16
  // bytes.
  template <bool kFull>
  __device__ void tile(uint32_t rows, unsigned first_block, const float* s, uint32_t valid) {
    const int quad_lane = Fragments::c_column(lane_index(), 0) / 2;
    const unsigned block = first_block + quad_lane;
    const uint32_t mine = kFull ? 0xff : valid >> (quad_lane * kDelegateKeys) & 0xff;
    uint32_t places[Tile::kGroups][2];
    if constexpr (kSweep == Sweep::kScores) {
      bool some = false;
      const Delegates delegates(p_, row_, block);
      for_each_candidate([&](int group, int half, int at) {
        places[group][half] = at < count_ ? *delegates.of(at) : kNotChosen;
        some |= places[group][half] < p_.places;
      });
      if (!__any_sync(kAllLanes, some)) return;
    }
    float* first_scores = nullptr;  // of the lane's first candidate, in a full tile
    if constexpr (kSweep == Sweep::kAll && kFull) {
      first_scores =
          opaque(p_.scores + (p_.query_begin + row_) * p_.search.columns + block * kDelegateKeys);
    }
    const float* const block_s = s + quad_lane * kDelegateKeys;
    float best[Tile::kGroups][2];
    for_each_candidate([&](int group, int half, int) { best[group][half] = -INFINITY; });
    // One step after the other where registers are short.
#pragma unroll(kFull&& kSweep == Sweep::kScores ? Tile::kSteps : 1)
    for (int step = 0; step < Tile::kSteps; ++step) {
      typename Tile::Products scores;
      tile_.multiply(rows + row_place_, step, scores);
      add_times(block_s + step * Tile::kLaneKeys, scores);
      if (!kFull) hide_invalid(mine >> (step * Tile::kLaneKeys), scores);
      for_each_candidate([&](int group, int half, int at) {
        const float (&of_candidate)[Tile::kLaneKeys] = scores[group][half];
        float& top = best[group][half];
        if (kSweep == Sweep::kDelegates || sizeof(T) == 4) {
#pragma unroll
          for (int i = 0; i < Tile::kLaneKeys; ++i) {
            top = max_or_nan(top, of_candidate[i]);
          }
        }
        if constexpr (kSweep == Sweep::kAll) {
          if (at >= count_) return;
          const int64_t q = p_.query_begin + row_ + at;
          const unsigned m = block * kDelegateKeys + step * Tile::kLaneKeys;
          float* out;
          int room = Tile::kLaneKeys;
          if constexpr (kFull) {
            const unsigned columns = static_cast<unsigned>(p_.search.columns);
            out = first_scores + uint64_t{columns} * at + step * Tile::kLaneKeys;
          } else {
            const int64_t begin = scores_of(p_.search, q, view_);
            const int64_t end = min(begin + view_.length, p_.search.score_count);
            room = static_cast<int>(clamp(end - (begin + m), 0, Tile::kLaneKeys));
            out = p_.scores + begin + m;
          }
          if (sizeof(T) == 4 && top != top) {
            exact_block(p_.search, view_, q, m, mine, block_s, out, room);
          } else if (kFull) {
            store(of_candidate, out);
          } else {
#pragma unroll
            for (int i = 0; i < Tile::kLaneKeys; ++i) {
              if (i < room) out[i] = of_candidate[i];
            }
          }
        }
        if constexpr (kSweep == Sweep::kScores) {
          if (places[group][half] >= p_.places) return;
          float* const out = p_.block_scores + uint64_t{places[group][half]} * kDelegateKeys;
          if (sizeof(T) == 4 && top != top) {
            exact_block(p_.search, view_, p_.query_begin + row_ + at, block * kDelegateKeys, mine,
                        block_s, out);
            return;
          }
          store(of_candidate, out + step * Tile::kLaneKeys);
        }
      });
    }
    if constexpr (kSweep == Sweep::kDelegates) {
      const Delegates delegates(p_, row_, block);
      for_each_candidate([&](int group, int half, int at) {
        float top = best[group][half];
        if (sizeof(T) == 4 && at < count_ && top != top) {
          top = exact_block(p_.search, view_, p_.query_begin + row_ + at, block * kDelegateKeys,
                            mine, block_s, nullptr);
        }
        if (!kFull && mine == 0) top = __uint_as_float(kNobody);
        if (at < count_) *delegates.of(at) = __float_as_uint(top);
      });
    }
  }

 private:
  // Where the delegate of one block lies, of a lane's candidates: an addition each.
  class Delegates {
   public:
    __device__ Delegates(const SweepParams& p, unsigned row, unsigned block)
        : first_(opaque(reinterpret_cast<char*>(p.delegates + uint64_t{p.blocks} * row + block))),
          blocks_(p.blocks) {
      __builtin_assume(__isGlobal(first_));
    }
    __device__ uint32_t* of(unsigned at) const {
      return reinterpret_cast<uint32_t*>(first_ + uint64_t{blocks_} * (at * 4));
    }

   private:
    char* first_;
    unsigned blocks_;
  };

  // The lane's first, of those of the thread block.
  __device__ static int first_candidate() {
    return warp_index() / 2 * Tile::kWarpCandidates + Fragments::c_candidate(lane_index(), 0);
  }

  // f(group, half, candidates after this lane's first).
  template <class F>
  __device__ static void for_each_candidate(const F& f) {
#pragma unroll
    for (int group = 0; group < Tile::kGroups; ++group) {
      f(group, 0, group * 16);
      f(group, 1, group * 16 + 8);
    }
  }

  // A candidate's scores of the lane's keys of a step.
  __device__ static void store(const float (&scores)[Tile::kLaneKeys], float* out) {
#pragma unroll
    for (int i = 0; i < Tile::kLaneKeys; i += 4) {
      *reinterpret_cast<float4*>(out + i) =
          make_float4(scores[i], scores[i + 1], scores[i + 2], scores[i + 3]);
    }
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
    for_each_candidate([&](int group, int half, int) {
#pragma unroll
      for (int i = 0; i < Tile::kLaneKeys; ++i) {
        scores[group][half][i] = fmaf(p_.search.scale, scores[group][half][i], times[i]);
      }
    });
  }

  // -inf where none is valid.
  __device__ static void hide_invalid(uint32_t valid, typename Tile::Products& scores) {
    for_each_candidate([&](int group, int half, int) {
#pragma unroll
      for (int i = 0; i < Tile::kLaneKeys; ++i) {
        if ((valid >> i & 1) == 0) scores[group][half][i] = -INFINITY;
      }
    });
  }

  const SweepParams& p_;
  const SequenceView& view_;
  unsigned row_;        // of the lane's first candidate in the task: past the last as well
  int count_;           // candidates from the lane's first on
  uint32_t row_place_;  // of this lane's keys in a tile
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

template <class T, int kRowBytes, Sweep kSweep>
__device__ __forceinline__ void sweep_part(const SweepParams& p, unsigned first_tile,
                                           unsigned tiles, unsigned parts) {
  extern __shared__ __align__(1024) char memory[];
  __shared__ typename KeyStages<kRowBytes>::Shared shared;
  // Tiles of candidates are neighbours: they read the same keys at about the same time.
  const CandidateRange candidates =
      candidates_of<kBlockCandidates<T, kRowBytes>>(p, first_tile + blockIdx.x % tiles);
  if (candidates.count == 0) return;
  if (threadIdx.x == 0) {
    shared.view = view_sequence(p.search, candidates.sequence);
    shared.query_clock = clock_time(p.search.clock, shared.view.query_time);
  }
  load_time_mlp(p.search.behaviours.mlp, &shared.mlp);
  load_candidates<T, kRowBytes>(p.search, candidates, memory);
  __syncthreads();
  if constexpr (kSweep == Sweep::kAll) {
    fill_past(p, candidates, shared.view, blockIdx.x / tiles, parts);
  }
  const int64_t length = shared.view.length;
  const int64_t step = ((length + parts - 1) / parts + kPairKeys - 1) / kPairKeys * kPairKeys;
  const unsigned begin = static_cast<unsigned>(min(length, blockIdx.x / tiles * step));
  const unsigned end = static_cast<unsigned>(min(length, begin + step));
  if (begin == end) return;

  const uint32_t rows = shared_address(memory);
  CandidateSweep<T, kRowBytes, kSweep> sweep(p, candidates, shared.view, rows);
  __syncthreads();
  KeyStages<kRowBytes> keys(p.search, begin, end, &shared, rows);
  keys.start();
  const int half = warp_index() % 2;
  const auto sweep_tile = [&]<bool kFull>(int tile) {
    const uint32_t stage = keys.wait(tile);
    if (!sweep.has_work()) return;
    const unsigned first_block = (begin + tile * kTileKeys + half * kWarpKeys) / kDelegateKeys;
    sweep.template tile<kFull>(stage, first_block, keys.s(tile, half), keys.valid(tile, half));
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
                 const unsigned tiles, const unsigned parts) {
  if constexpr (kHasAsyncCopy) sweep_part<T, kRowBytes, kSweep>(p, first_tile, tiles, parts);
}

// Into how many parts each sequence is cut: such that about two blocks a multiprocessor have work,
// and where parts stay long enough to pay for loading the candidates, several waves of them, so
// that unequal ones even out. tiles: that have candidates.
inline unsigned sweep_parts(int64_t tiles, int64_t longest, int multiprocessors) {
  const int64_t resident = 2 * int64_t{multiprocessors};
  const auto parts = [&](int64_t wanted, int64_t shortest) {
    const int64_t most = (longest + shortest - 1) / shortest;
    return wanted / tiles < most ? wanted / tiles : most;
  };
  const int64_t few = parts(resident, 2 * kTileKeys), many = parts(4 * resident, 16 * kTileKeys);
  const int64_t best = few > many ? few : many;
  return static_cast<unsigned>(best < 1 ? 1 : best);
}

template <class T, int kRowBytes, Sweep kSweep>
cudaError_t launch_sweep(const SweepParams& p, CudaStream stream) {
  constexpr int kCandidates = kBlockCandidates<T, kRowBytes>;
  constexpr int kBytes = KeyStages<kRowBytes>::kBytes;
  static_assert(kCandidates * kRowBytes <= kBytes);  // candidates pass through the stages' memory
  const DeviceSearchParams& search = p.search;
  const int64_t queries = p.query_end - p.query_begin;
  const int64_t tiles = queries / kCandidates + p.task_sequences;
  // Ragged sequences are taken for equal, of which a task holds a few, and the longest for four
  // times as long.
  int64_t sequences = p.task_sequences, longest = search.columns;
  if (search.layout != SearchLayout::kDense) {
    const int64_t usual = queries * search.sequences / search.queries + 1;
    sequences = usual < sequences ? usual : sequences;
    longest = 4 * search.positions / search.sequences;
  }
  const unsigned parts = sweep_parts(queries / kCandidates + sequences, longest, p.multiprocessors);
  auto* kernel = sweep_kernel<T, kRowBytes, kSweep>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  // Queries and sequences are fewer than 2^31 each, so that tiles fit 32 bits.
  return static_cast<cudaError_t>(for_each_part(tiles, parts, [&](int64_t first, int64_t count) {
    kernel<<<grid_of(count * parts), kSweepThreads, kBytes, stream>>>(
        p, static_cast<unsigned>(first), static_cast<unsigned>(count), parts);
    return cudaGetLastError();
  }));
}

// For rows of any whole number of 16-byte pieces up to 512 bytes.
template <class T, Sweep kSweep>
cudaError_t launch_sweep(const SweepParams& p, CudaStream stream) {
  const int64_t bytes = p.search.behaviours.dim * static_cast<int64_t>(sizeof(T));
  if (bytes <= 128) return launch_sweep<T, 128, kSweep>(p, stream);
  if (bytes <= 256) return launch_sweep<T, 256, kSweep>(p, stream);
  return launch_sweep<T, 512, kSweep>(p, stream);
}

template <class T>
cudaError_t launch_sweep(const SweepParams& p, Sweep sweep, CudaStream stream) {
  switch (sweep) {
    case Sweep::kDelegates:
      return launch_sweep<T, Sweep::kDelegates>(p, stream);
    case Sweep::kScores:
      return launch_sweep<T, Sweep::kScores>(p, stream);
    default:
      return launch_sweep<T, Sweep::kAll>(p, stream);
  }
}

}  // namespace longclock
