// SPDX-License-Identifier: Apache-2.0
// Tiles of keys on their way from global to shared memory, a ring of them in flight. Ahead of the
// tiles go in pairs: of each of their keys one thread evaluates the time term and finds the
// row.
#pragma once

#include "longclock/search/candidate_tile.cuh"
#include "longclock/search/sequence_view.cuh"
#include "longclock/time/time_term.cuh"

namespace longclock {

constexpr int kSweepThreads = 128;
constexpr int kPairKeys = kSweepThreads;
constexpr int kPairTiles = kPairKeys / kTileKeys;

// The compiler recomputes what it can; a value that went through here is kept.
template <class T>
__device__ __forceinline__ T opaque(T value) {
  if constexpr (sizeof(T) == 8) {
    asm volatile("" : "+l"(value));
  } else {
    asm volatile("" : "+r"(value));
  }
  return value;
}

// Behaviours [begin, end) of a sequence, begin a multiple of kPairKeys. Rows in shared memory are
// padded with zeros from the dimension to kRowBytes.
template <int kRowBytes>
class KeyStages {
 public:
  static constexpr int kTileBytes = kTileKeys * kRowBytes;
  static constexpr int kStages = kRowBytes <= 128 ? 4 : 2;
  static constexpr int kBytes = kStages * kTileBytes;

  // Chunks, evaluated two ahead; a warp that is late may still read the one before.
  static constexpr int kPairs = 4;
  static_assert(kStages - 1 <= 2 * kPairTiles);
  struct Shared {
    float s[kPairs][kPairKeys];  // NaN for an unknown id
    uint32_t rows[kPairs][kPairKeys];
    uint32_t valid[kPairs][kPairKeys / kWarp];
    // The caller's to fill, with a barrier behind it.
    SequenceView view;
    int32_t query_clock;  // on the clock
    SharedTimeMlp mlp;
  };

  // memory: kBytes, at a multiple of 128.
  __device__ KeyStages(const DeviceSearchParams& p, unsigned begin, unsigned end, Shared* shared,
                       uint32_t memory)
      : p_(p),
        shared_(shared),
        begin_(begin),
        end_(end),
        memory_(memory),
        to_(opaque(memory + swizzled<kRowBytes>(thread_row(), lane_index() % 4))) {}

  __device__ int tiles() const {
    return static_cast<int>((end_ - begin_ + kTileKeys - 1) / kTileKeys);
  }

  // All threads.
  __device__ void start() {
    const int pieces = row_pieces();
    for (int i = threadIdx.x; pieces < kPieces && i < kStages * kTileKeys * kPieces;
         i += kSweepThreads) {
      const uint32_t at = memory_ + swizzled<kRowBytes>(i / kPieces, i % kPieces);
      if (i % kPieces >= pieces) {
        asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
      }
    }
    evaluate(0);
    evaluate(1);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) copy(i);
  }

  // Before the first tile of each pair, by all threads.
  __device__ void begin_pair(int pair) { evaluate(pair + 2); }

  // Shared memory of tile `tile`, in which all of its keys have arrived; begins to copy a later
  // one. All threads, tile after tile.
  __device__ uint32_t wait(int tile) {
    wait_for_copies<kStages - 2>();
    __syncthreads();
    copy(tile + kStages - 1);
    return memory_ + tile % kStages * kTileBytes;
  }

  // s of warp_keys' 32 keys of a tile, 0 or 1, and which of them are valid.
  __device__ const float* s(int tile, int warp_keys) const {
    return shared_->s[pair_of(tile)] + key_in_pair(tile) + warp_keys * kWarpKeys;
  }
  __device__ uint32_t valid(int tile, int warp_keys) const {
    return shared_->valid[pair_of(tile)][key_in_pair(tile) / kWarp + warp_keys];
  }

 private:
  static constexpr uint32_t kNoRow = 0xffffffffu;  // zeros: not valid, or of an unknown id
  static constexpr int kPieces = kRowBytes / 16;
  static constexpr int kThreadRows = kTileKeys / (kSweepThreads / 4);

  __device__ static int pair_of(int tile) { return tile / kPairTiles % kPairs; }
  __device__ static int key_in_pair(int tile) { return tile % kPairTiles * kTileKeys; }

  __device__ int row_pieces() const {
    return static_cast<int>(p_.behaviours.dim) * size_of(p_.behaviours.dtype) / 16;
  }

  // The row of shared memory that this thread's quad fills first; a quad copies 64 bytes of a row
  // at a time. Of neighbouring quads, rows differ by four: their pieces lie in different banks.
  __device__ static int thread_row() {
    const int quad = lane_index() / 4;
    return warp_index() * 8 + quad % 2 * 4 + quad / 2;
  }

  __device__ void evaluate(int pair) {
    const unsigned m = begin_ + static_cast<unsigned>(pair) * kPairKeys + threadIdx.x;
    const bool is = m < end_ && (!p_.filtered || is_valid(p_, shared_->view, m));
    float value = 0.0f;
    uint32_t row = is ? m : kNoRow;
    if (is) {
      const int32_t delta = clock_delta(
          p_.clock, clock_time(p_.clock, time_of(p_, shared_->view, m)), shared_->query_clock);
      value = time_similarity(shared_->mlp, p_.behaviours.mlp.hidden, time_phi(delta, p_.per_unit));
      if (p_.behaviours.ids) {
        const int64_t id = p_.behaviours.ids[shared_->view.position + m];
        const bool known = is_row(p_, id);
        if (p_.check) device_check(known, "ids must be from 0 to N - 1", "search");
        row = known ? static_cast<uint32_t>(id) : kNoRow;
        if (!known) value = __int_as_float(0x7fc00000);
      }
    }
    const int at = pair % kPairs;
    shared_->s[at][threadIdx.x] = value;
    shared_->rows[at][threadIdx.x] = row;
    const uint32_t word = __ballot_sync(kAllLanes, is);
    if (lane_index() == 0) shared_->valid[at][warp_index()] = word;
  }

  // Begins to copy a tile. Always ends a group.
  __device__ void copy(int tile) {
    if (tile < tiles()) {
      const int pieces = row_pieces();
      const char* const keys =
          (p_.behaviours.ids ? static_cast<const char*>(p_.behaviours.keys) : shared_->view.keys) +
          lane_index() % 4 * 16;
      const uint32_t* const rows =
          shared_->rows[pair_of(tile)] + key_in_pair(tile) + key_of_row(thread_row());
      const uint32_t to = to_ + tile % kStages * kTileBytes;
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        const uint32_t row = rows[32 * i];
        const int size = row == kNoRow ? 0 : 16;
        const char* const from = opaque(row_after(p_, keys, row == kNoRow ? 0 : row));
#pragma unroll
        for (int piece = 0; piece < kPieces; piece += 4) {
          if (piece + lane_index() % 4 < pieces) {
            copy16_async(moved(to, piece) + 32 * i * kRowBytes, from + piece * 16, size);
          }
        }
      }
    }
    end_copy_group();
  }

  const DeviceSearchParams& p_;
  Shared* shared_;
  unsigned begin_, end_;
  uint32_t memory_;
  uint32_t to_;  // of this thread's first piece of a stage
};

}  // namespace longclock
