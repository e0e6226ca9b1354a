// SPDX-License-Identifier: Apache-2.0
// Tiles of keys on their way from global to shared memory, a ring of them in flight. Ahead of the
// tiles go in pairs: of each of their keys one thread evaluates the time term and finds the
// row.
#pragma once

#include "longclock/common/opaque.cuh"
#include "longclock/search/candidate_tile.cuh"
#include "longclock/search/many_candidates.h"
#include "longclock/search/sequence_view.cuh"
#include "longclock/time/time_term.cuh"

namespace longclock {

constexpr int kSweepThreads = 128;
constexpr int kPairKeys = kSweepThreads;
constexpr int kPairTiles = kPairKeys / kTileKeys;
constexpr int kMaxFeatureRowBytes = 256;  // of a row with its features

// Behaviours [begin, end) of a sequence, begin a multiple of kTileKeys. Rows in shared memory are
// padded with zeros from the dimension to kRowBytes.
//
// kReadsTimes: s and what is valid are read where an earlier launch left them, if it did.
// kScaled: rows have a scale each.
template <int kRowBytes, bool kReadsTimes = false, bool kScaled = false>
class KeyStages {
 public:
  static constexpr int kTileBytes = kTileKeys * kRowBytes;
  // Tiles of the ring: the caller says which of the two, both powers of two.
  static constexpr int kMostStages = kRowBytes <= 256 ? 4 : 2;
  static constexpr int kFewestStages = kRowBytes <= 128 ? 4 : 2;
  static constexpr int kBytes = kMostStages * kTileBytes;
  // Whether rows may have features: the widest leave no registers for them.
  static constexpr bool kFeatures = kRowBytes <= kMaxFeatureRowBytes;
  // Behind them: rows of features.
  static int feature_bytes(const DeviceSearchParams& p) {
    return p.behaviours.feature_count * kPairs * kPairKeys * static_cast<int>(sizeof(uint32_t));
  }

  // Chunks, evaluated two ahead; a warp that is late may still read the one before.
  static constexpr int kPairs = 4;
  static_assert(kMostStages - 1 <= 2 * kPairTiles);
  static constexpr int kScalesAfter = kPairs * kPairKeys;
  struct Shared {
    // NaN for an unknown id; and kScalesAfter elements behind each the scale of its row.
    float s[kScaled ? 2 * kPairs : kPairs][kPairKeys];
    uint32_t rows[kPairs][kPairKeys];
    uint32_t valid[kPairs][kPairKeys / kWarp];
    // The caller's to fill, with a barrier behind it.
    SequenceView view;
    SharedTimeTerm time;
    float* times;  // where s of the sequence is to be written or read, or none
  };

  // memory: of `stages` tiles and feature_bytes(), at a multiple of 128.
  __device__ KeyStages(const DeviceSearchParams& p, unsigned begin, unsigned end, Shared* shared,
                       char* memory, int stages = kMostStages)
      : p_(p),
        shared_(shared),
        ring_(kMostStages == kFewestStages ? kMostStages : stages),
        last_(opaque((ring_ - 1) * kTileBytes)),
        feature_rows_(reinterpret_cast<uint32_t*>(memory + ring_ * kTileBytes)),
        begin_(begin),
        end_(end),
        memory_(shared_address(memory)),
        to_(opaque(memory_ + swizzled<kRowBytes>(thread_row(), lane_index() % 4))) {
    if constexpr (kKeepsKeys) left_ = opaque(pieces_left()), keys_ = opaque(quad_keys());
  }

  __device__ int tiles() const {
    return static_cast<int>((end_ - begin_ + kTileKeys - 1) / kTileKeys);
  }

  // All threads.
  __device__ void start() {
    const int pieces = pieces_of(p_.query_dim);
    for (int i = threadIdx.x; pieces < kPieces && i < ring_ * kTileKeys * kPieces;
         i += kSweepThreads) {
      const uint32_t at = memory_ + swizzled<kRowBytes>(i / kPieces, i % kPieces);
      if (i % kPieces >= pieces) {
        asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
      }
    }
    evaluate(0);
    evaluate(1);
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < ring_ - 1; ++i) copy(i);
  }

  // Before the first tile of each pair, by all threads.
  __device__ void begin_pair(int pair) { evaluate(pair + 2); }

  // Shared memory of tile `tile`, in which all of its keys have arrived; begins to copy a later
  // one. All threads, tile after tile.
  __device__ uint32_t wait(int tile) {
    if (kMostStages == kFewestStages || ring_ == kMostStages) {
      wait_for_copies<kMostStages - 2>();
    } else {
      wait_for_copies<kFewestStages - 2>();
    }
    __syncthreads();
    copy(tile + ring_ - 1);
    return memory_ + stage(tile);
  }

  // s of warp_keys' 32 keys of a tile, 0 or 1, and which of them are valid.
  __device__ const float* s(int tile, int warp_keys) const {
    return shared_->s[pair_of(tile)] + key_in_pair(tile) + warp_keys * kWarpKeys;
  }
  __device__ uint32_t valid(int tile, int warp_keys) const {
    return shared_->valid[pair_of(tile)][key_in_pair(tile) / kWarp + warp_keys];
  }

 protected:
  // Whether registers suffice for what is the same for every tile.
  static constexpr bool kKeepsKeys = !kReadsTimes && kRowBytes <= 256;
  static constexpr uint32_t kNoRow = 0xffffffffu;  // zeros: not valid, or of an unknown id
  static constexpr int kPieces = kRowBytes / 16;
  static constexpr int kThreadRows = kTileKeys / (kSweepThreads / 4);

  __device__ static unsigned pair_of(unsigned tile) { return tile / kPairTiles % kPairs; }
  // Where a tile lies in the ring.
  __device__ unsigned stage(unsigned tile) const {
    if constexpr (kMostStages == kFewestStages) return tile % kMostStages * kTileBytes;
    return tile * kTileBytes & last_;
  }
  __device__ static unsigned key_in_pair(unsigned tile) { return tile % kPairTiles * kTileKeys; }

  __device__ int pieces_of(int64_t dim) const {
    return static_cast<int>(dim) * size_of(p_.behaviours.dtype) / 16;
  }

  // The row of shared memory that this thread's quad fills first; a quad copies 64 bytes of a row
  // at a time. Of neighbouring quads, rows differ by four: their pieces lie in different banks.
  __device__ static int thread_row() {
    const int quad = lane_index() / 4;
    return warp_index() * 8 + quad % 2 * 4 + quad / 2;
  }

  __device__ void evaluate(int pair) {
    const unsigned m = begin_ + static_cast<unsigned>(pair) * kPairKeys + threadIdx.x;
    float value;
    const bool is = find_time(m, &value);
    uint32_t row = is ? m : kNoRow;
    if (is) {
      if (p_.behaviours.ids) {
        const int64_t id = p_.behaviours.ids[shared_->view.position + m];
        const bool known = is_row(p_, id);
        if (p_.check) device_check(known, "ids must be from 0 to N - 1", "search");
        row = known ? static_cast<uint32_t>(id) : kNoRow;
        if (!known) value = __int_as_float(0x7fc00000);
      }
    }
    const int at = pair % kPairs;
    if (kFeatures && p_.behaviours.feature_count > 0 && is) {
      const bool known = find_features(at, m);
      if (!known) value = __int_as_float(0x7fc00000);
    }
    shared_->s[at][threadIdx.x] = value;
    shared_->rows[at][threadIdx.x] = row;
    if constexpr (kScaled) {
      const int64_t place = p_.behaviours.ids ? row : shared_->view.position + row;
      const float scale = row == kNoRow ? 0.0f : p_.behaviours.key_scale[place];
      shared_->s[kPairs + at][threadIdx.x] = scale;
    }
    const uint32_t word = __ballot_sync(kAllLanes, is);
    if (lane_index() == 0) shared_->valid[at][warp_index()] = word;
  }

  // s of behaviour m; false, and 0, where it is not valid.
  __device__ bool find_time(unsigned m, float* value) const {
    float* const times = shared_->times;
    *value = 0.0f;
    if (m >= end_) return false;
    if (kReadsTimes && times != nullptr) {
      const float found = times[m];
      if (__float_as_uint(found) == kNobody) return false;
      *value = found;
      return true;
    }
    const bool is = !p_.filtered || is_valid(p_, shared_->view, m);
    if (is) {
      const TimeTerm& time = p_.behaviours.time;
      *value = time_similarity(shared_->time, p_.clocks, time.clocks, time.clock[0].mlp.hidden,
                               time_of(p_, shared_->view, m), shared_->view.query_time);
    }
    if (!kReadsTimes && times != nullptr) times[m] = is ? *value : __uint_as_float(kNobody);
    return is;
  }

  // Finds the rows of behaviour m's features, 0 for an id in no table; false where there is one.
  __device__ bool find_features(int pair, unsigned m) {
    const int64_t position = shared_->view.position + m;
    const bool known = knows_features(p_, shared_->view, m);
    if (p_.check) device_check(known, "ids must be from 0 to N - 1", "search");
#pragma unroll 1
    for (int f = 0; f < p_.behaviours.feature_count; ++f) {
      const Feature& feature = p_.behaviours.features[f];
      int64_t row = feature.ids ? feature.ids[position] : position;
      if (feature.ids && (row < 0 || row >= feature.table_rows)) row = 0;
      feature_rows_[(f * kPairs + pair) * kPairKeys + threadIdx.x] = static_cast<uint32_t>(row);
    }
    return known;
  }

  // Begins to copy the columns of features behind those of a tile's rows.
  __device__ void copy_features(int tile) {
    const uint32_t* const valid = shared_->valid[pair_of(tile)];
    const uint32_t to = memory_ + stage(tile);
    int first = pieces_of(p_.behaviours.dim);
#pragma unroll 1
    for (int f = 0; f < p_.behaviours.feature_count; ++f) {
      const Feature& feature = p_.behaviours.features[f];
      const int pieces = pieces_of(feature.dim);
      const int64_t row_bytes = feature.row_stride * size_of(p_.behaviours.dtype);
#pragma unroll 1
      for (int i = 0; i < kThreadRows; ++i) {
        const int row = thread_row() + 32 * i, key = key_in_pair(tile) + key_of_row(row);
        const bool is = (valid[key / kWarp] >> key % kWarp & 1) != 0;
        const bool readable = is && (!feature.ids || feature.table_rows > 0);
        const uint32_t at =
            readable ? feature_rows_[(f * kPairs + pair_of(tile)) * kPairKeys + key] : 0;
        const char* const from = static_cast<const char*>(feature.keys) + at * row_bytes;
#pragma unroll 1
        for (int piece = lane_index() % 4; piece < pieces; piece += 4) {
          copy16_async(to + swizzled<kRowBytes>(row, first + piece),
                       readable ? from + piece * 16 : from, readable ? 16 : 0);
        }
      }
      first += pieces;
    }
  }

  // Pieces of a row from this thread's first on.
  __device__ int pieces_left() const { return pieces_of(p_.behaviours.dim) - lane_index() % 4; }
  // The first piece that this thread copies, of row 0.
  __device__ const char* quad_keys() const {
    const char* const keys =
        p_.behaviours.ids ? static_cast<const char*>(p_.behaviours.keys) : shared_->view.keys;
    return keys + lane_index() % 4 * 16;
  }

  // Begins to copy a tile. Always ends a group.
  __device__ void copy(int tile) {
    if (tile < tiles()) {
      const int left = kKeepsKeys ? left_ : pieces_left();
      const char* const keys = kKeepsKeys ? keys_ : quad_keys();
      const uint32_t* const rows =
          shared_->rows[pair_of(tile)] + key_in_pair(tile) + key_of_row(thread_row());
      const uint32_t to = to_ + stage(tile);
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        const uint32_t row = rows[32 * i];
        const int size = row == kNoRow ? 0 : 16;
        const char* const from = opaque(row_after(p_, keys, row == kNoRow ? 0 : row));
#pragma unroll
        for (int piece = 0; piece < kPieces; piece += 4) {
          if (piece < left) {
            copy16_async(moved(to, piece) + 32 * i * kRowBytes, from + piece * 16, size);
          }
        }
      }
      if (kFeatures && p_.behaviours.feature_count > 0) copy_features(tile);
    }
    end_copy_group();
  }

  const DeviceSearchParams& p_;
  Shared* shared_;
  int ring_, last_;         // tiles, and where the last of them lies
  uint32_t* feature_rows_;  // [features, kPairs, kPairKeys]
  unsigned begin_, end_;
  uint32_t memory_;
  uint32_t to_;  // of this thread's first piece of a stage
  // Where they are kept: pieces_left() and quad_keys().
  int left_ = 0;
  const char* keys_ = nullptr;
};

}  // namespace longclock
