// SPDX-License-Identifier: Apache-2.0
// What each kind of sweep makes of the scores of a tile. A lane has all scores of one block of
// eight keys for each of its candidates, a step of the keys at a time.
#pragma once

#include "longclock/search/candidate_tile.cuh"
#include "longclock/search/key_stages.cuh"
#include "longclock/search/many_candidates.h"

namespace longclock {

__device__ __forceinline__ float max_or_nan(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

// sum + query . row of fp32.
__device__ __forceinline__ float add_row(const float* query, const char* row, int64_t dim,
                                         float sum) {
#pragma unroll 1
  for (int64_t d = 0; d < dim; ++d) {
    sum = fmaf(query[d], __ldg(reinterpret_cast<const float*>(row) + d), sum);
  }
  return sum;
}

// The plain product of one query with the keys of a block, for what three products of TF32 cannot
// do: they make NaN of an infinity. Returns the best score; out: the first `room`, or none.
__device__ __forceinline__ float exact_block(const DeviceSearchParams& p, const SequenceView& view,
                                             int64_t q, unsigned key, uint32_t valid,
                                             const float* s, float* out, int room = kDelegateKeys) {
  const float* query = static_cast<const float*>(p.query) + q * p.query_dim;
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
        float dot = add_row(query, row, p.behaviours.dim, 0.0f);
        int64_t at = p.behaviours.dim;
#pragma unroll 1
        for (int f = 0; f < p.behaviours.feature_count; ++f) {
          const Feature& feature = p.behaviours.features[f];
          dot = add_row(query + at, feature_row(feature, 4, view, key + i), feature.dim, dot);
          at += feature.dim;
        }
        score = fmaf(p.scale, dot, score);
      }
      best = max_or_nan(best, score);
    }
    if (out != nullptr && i < room) out[i] = score;
  }
  return best;
}

// A lane's candidates and its block of a tile's keys.
struct LaneBlock {
  const SweepParams& p;
  const SequenceView& view;
  unsigned row;  // of the first candidate in the task: past the last as well
  int count;     // candidates from the first on
  unsigned block;
  uint32_t valid;  // which of the keys are
  const float* s;  // of the keys

  // As exact_block(), for the candidate `at` after the first.
  __device__ float exact(int at, float* out, int room = kDelegateKeys) const {
    return exact_block(p.search, view, p.task.begin + row + at, block * kDelegateKeys, valid, s,
                       out, room);
  }
};

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

// A candidate's scores of the lane's keys of a step.
template <int kCount>
__device__ __forceinline__ void store_scores(const float (&scores)[kCount], float* out) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    *reinterpret_cast<float4*>(out + i) =
        make_float4(scores[i], scores[i + 1], scores[i + 2], scores[i + 3]);
  }
}

// The largest of `best` and the scores, or NaN.
template <int kCount>
__device__ __forceinline__ float best_with(float best, const float (&scores)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) best = max_or_nan(best, scores[i]);
  return best;
}

// Whether only exact_block() knows a candidate's scores of all keys of the lane.
template <class T, int kCount>
__device__ __forceinline__ bool needs_exact(const float (&scores)[kCount]) {
  if constexpr (sizeof(T) != 4) return false;
  const float best = best_with(-INFINITY, scores);
  return best != best;
}

// Of one tile. wanted() says whether the warp's scores are; add(step, scores) takes them step by
// step, of fp32 all in one; end() comes after the last. kFull: all keys are valid, and scores lie
// in whole pieces of 16 bytes.
template <class T, int kRowBytes, Sweep kSweep, bool kFull>
class SweepOutput;

// The best score of each block.
template <class T, int kRowBytes, bool kFull>
class SweepOutput<T, kRowBytes, Sweep::kDelegates, kFull> {
 public:
  using Tile = CandidateTile<T, kRowBytes>;

  __device__ explicit SweepOutput(const LaneBlock& lane) : lane_(lane) {
    Tile::for_each_candidate([&](int group, int half, int) { best_[group][half] = -INFINITY; });
  }
  __device__ bool wanted() const { return true; }
  __device__ void add(int, const typename Tile::Products& scores) {
    Tile::for_each_candidate([&](int group, int half, int) {
      best_[group][half] = best_with(best_[group][half], scores[group][half]);
    });
  }
  __device__ void end() const {
    const Delegates delegates(lane_.p, lane_.row, lane_.block);
    Tile::for_each_candidate([&](int group, int half, int at) {
      float best = best_[group][half];
      if (sizeof(T) == 4 && at < lane_.count && best != best) best = lane_.exact(at, nullptr);
      if (!kFull && lane_.valid == 0) best = __uint_as_float(kNobody);
      if (at < lane_.count) *delegates.of(at) = __float_as_uint(best);
    });
  }

 private:
  const LaneBlock& lane_;
  float best_[Tile::kGroups][2];
};

// The best score of each block, and all scores, of which a query's have room for whole tiles.
template <class T, int kRowBytes, bool kFull>
class SweepOutput<T, kRowBytes, Sweep::kStored, kFull> {
 public:
  using Tile = CandidateTile<T, kRowBytes>;
  static_assert(Tile::kSteps == 1);

  __device__ explicit SweepOutput(const LaneBlock& lane)
      : lane_(lane),
        first_scores_(opaque(lane.p.stored +
                             (uint64_t{lane.p.blocks} * lane.row + lane.block) * kDelegateKeys)) {}
  __device__ bool wanted() const { return true; }
  __device__ void add(int, const typename Tile::Products& scores) const {
    const Delegates delegates(lane_.p, lane_.row, lane_.block);
    Tile::for_each_candidate([&](int group, int half, int at) {
      const float (&of_candidate)[kDelegateKeys] = scores[group][half];
      float best = best_with(-INFINITY, of_candidate);
      const bool is = at < lane_.count, exact = best != best;
      float* const out = first_scores_ + uint64_t{lane_.p.blocks} * (at * kDelegateKeys);
      store_with_neighbour(of_candidate, is, out);
      if (__any_sync(kAllLanes, exact)) {
        __syncwarp();  // the neighbour's stores come before
        if (is && exact) best = lane_.exact(at, out);
      }
      if (!kFull && lane_.valid == 0) best = __uint_as_float(kNobody);
      if (is) *delegates.of(at) = __float_as_uint(best);
    });
  }
  __device__ void end() const {}

 private:
  // Two lanes store halves of their two blocks side by side: whole sectors. By all lanes.
  __device__ static void store_with_neighbour(const float (&scores)[kDelegateKeys], bool is,
                                              float* out) {
    constexpr int kHalf = kDelegateKeys / 2;
    const bool odd = lane_index() % 2 == 1;
    float first[kHalf], second[kHalf];  // of the even lane's block, and of the odd one's
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float given = __shfl_xor_sync(kAllLanes, odd ? scores[i] : scores[kHalf + i], 1);
      first[i] = odd ? given : scores[i];
      second[i] = odd ? scores[kHalf + i] : given;
    }
    if (!is) return;
    float* const blocks = odd ? out - kHalf : out;
    store_scores(first, blocks);
    store_scores(second, blocks + kDelegateKeys);
  }

  const LaneBlock& lane_;
  float* first_scores_;  // of the lane's first candidate
};

// The eight scores of each block that was chosen.
template <class T, int kRowBytes, bool kFull>
class SweepOutput<T, kRowBytes, Sweep::kScores, kFull> {
 public:
  using Tile = CandidateTile<T, kRowBytes>;

  __device__ explicit SweepOutput(const LaneBlock& lane) : lane_(lane) {
    const Delegates delegates(lane.p, lane.row, lane.block);
    Tile::for_each_candidate([&](int group, int half, int at) {
      places_[group][half] = at < lane.count ? *delegates.of(at) : kNotChosen;
      some_ |= places_[group][half] < lane.p.places;
    });
  }
  __device__ bool wanted() const { return __any_sync(kAllLanes, some_); }
  __device__ void add(int step, const typename Tile::Products& scores) const {
    Tile::for_each_candidate([&](int group, int half, int at) {
      const bool exact = needs_exact<T>(scores[group][half]);
      if (places_[group][half] >= lane_.p.places) return;
      float* const out = lane_.p.block_scores + uint64_t{places_[group][half]} * kDelegateKeys;
      if (exact) {
        lane_.exact(at, out);
      } else {
        store_scores(scores[group][half], out + step * Tile::kLaneKeys);
      }
    });
  }
  __device__ void end() const {}

 private:
  const LaneBlock& lane_;
  uint32_t places_[Tile::kGroups][2];
  bool some_ = false;
};

// All scores, where gsu_score has them.
template <class T, int kRowBytes, bool kFull>
class SweepOutput<T, kRowBytes, Sweep::kAll, kFull> {
 public:
  using Tile = CandidateTile<T, kRowBytes>;

  __device__ explicit SweepOutput(const LaneBlock& lane) : lane_(lane) {
    if constexpr (kFull) {
      first_scores_ =
          opaque(lane.p.scores + (lane.p.task.begin + lane.row) * lane.p.search.columns +
                 lane.block * kDelegateKeys);
    }
  }
  __device__ bool wanted() const { return true; }
  __device__ void add(int step, const typename Tile::Products& scores) const {
    Tile::for_each_candidate([&](int group, int half, int at) {
      const float (&of_candidate)[Tile::kLaneKeys] = scores[group][half];
      const bool exact = needs_exact<T>(of_candidate);
      if (at >= lane_.count) return;
      int room;
      float* const out = place(at, step, &room);
      if (exact) {
        lane_.exact(at, out, room);
      } else if (kFull) {
        store_scores(of_candidate, out);
      } else {
#pragma unroll
        for (int i = 0; i < Tile::kLaneKeys; ++i) {
          if (i < room) out[i] = of_candidate[i];
        }
      }
    });
  }
  __device__ void end() const {}

 private:
  // Where the scores of a step lie, of the candidate `at` after the first, and for how many there
  // is room.
  __device__ float* place(int at, int step, int* room) const {
    const DeviceSearchParams& search = lane_.p.search;
    if constexpr (kFull) {
      *room = Tile::kLaneKeys;
      const unsigned columns = static_cast<unsigned>(search.columns);
      return first_scores_ + uint64_t{columns} * at + step * Tile::kLaneKeys;
    }
    const unsigned m = lane_.block * kDelegateKeys + step * Tile::kLaneKeys;
    const int64_t begin = scores_of(search, lane_.p.task.begin + lane_.row + at, lane_.view);
    const int64_t end = min(begin + lane_.view.length, search.score_count);
    *room = static_cast<int>(clamp(end - (begin + m), 0, Tile::kLaneKeys));
    return lane_.p.scores + begin + m;
  }

  const LaneBlock& lane_;
  float* first_scores_;  // of the lane's first candidate, in a full tile
};

}  // namespace longclock
