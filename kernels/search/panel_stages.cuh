// SPDX-License-Identifier: Apache-2.0
// Tiles of keys on their way to shared memory a panel after the other, 128 bytes of the columns of
// one table, each with the same columns of the block's candidates. So rows may be as wide as they
// like and of several tables, and need not lie in whole pieces of 16 bytes: words are copied then,
// or what is not at a word's place is loaded and stored.
#pragma once

#include "longclock/search/key_stages.cuh"
#include "longclock/search/sweep_candidates.cuh"

namespace longclock {

// As KeyStages, of which it has what goes ahead of the tiles.
template <class T, bool kReadsTimes>
class PanelStages : public KeyStages<kPanelBytes, kReadsTimes> {
  using Keys = KeyStages<kPanelBytes, kReadsTimes>;

 public:
  static constexpr int kCandidates = kBlockCandidates<T, kPanelBytes>;
  static constexpr int kKeyBytes = kTileKeys * kPanelBytes;  // candidates lie behind them
  static constexpr int kTileBytes = kKeyBytes + kCandidates * kPanelBytes;
  static constexpr int kMostStages = 3, kFewestStages = 2;

  // memory: of `stages` tiles and feature_bytes(), at a multiple of 128.
  __device__ PanelStages(const SweepParams& p, const CandidateRange& candidates, unsigned begin,
                         unsigned end, typename Keys::Shared* shared, char* memory, int stages)
      : Keys(p.search, begin, end, shared, memory),
        rows_(p.rows),
        candidates_(p.candidates + (candidates.query - p.task.begin) * p.rows.candidate_bytes),
        count_(candidates.count),
        ring_end_(memory_ + stages * kTileBytes),
        stage_(memory_),
        target_(memory_) {
    feature_rows_ = reinterpret_cast<uint32_t*>(memory + stages * kTileBytes);
    skip_to_columns();
  }

  // All threads.
  __device__ void start() {
    Keys::evaluate(0);
    Keys::evaluate(1);
    __syncthreads();
    copy();
    if (has_most()) copy();
  }

  // Shared memory of the next panel, of one tile after the other, all of which has arrived; begins
  // to copy a later one. All threads.
  __device__ uint32_t wait() {
    if (has_most()) {
      wait_for_copies<kMostStages - 2>();
    } else {
      wait_for_copies<kFewestStages - 2>();
    }
    __syncthreads();
    copy();
    const uint32_t stage = stage_;
    stage_ = after(stage_);
    return stage;
  }

 private:
  using Keys::p_, Keys::shared_, Keys::memory_, Keys::feature_rows_, Keys::kNoRow, Keys::kPairs;
  static constexpr int kWarps = kSweepThreads / kWarp;
  static constexpr int kThreadRows = kSweepThreads / (kPanelBytes / 16);  // copied at a time

  // A panel of a table.
  struct Panel {
    const char* first;     // its bytes of row 0
    uint64_t row_bytes;    // to those of the next
    int left;              // bytes that a row has from there on
    const uint32_t* rows;  // of the tile's keys
  };

  __device__ bool has_most() const { return ring_end_ - memory_ == kMostStages * kTileBytes; }
  __device__ uint32_t after(uint32_t stage) const {
    return stage + kTileBytes == ring_end_ ? memory_ : stage + kTileBytes;
  }

  // Bytes of a row of the table whose panels are being copied.
  __device__ int table_bytes() const {
    const Behaviours& b = p_.behaviours;
    return static_cast<int>(table_ == 0 ? b.dim : b.features[table_ - 1].dim) *
           static_cast<int>(sizeof(T));
  }

  // To the next panel that has columns, of this tile or the next.
  __device__ void skip_to_columns() {
#pragma unroll 1
    while (at_ >= table_bytes()) {
      at_ = 0;
      if (++table_ <= p_.behaviours.feature_count) continue;
      table_ = candidate_at_ = 0;
      ++tile_;
    }
  }

  __device__ Panel panel() const {
    const Behaviours& b = p_.behaviours;
    const int pair = Keys::pair_of(tile_), key = Keys::key_in_pair(tile_);
    const int left = table_bytes() - at_;
    if (table_ == 0) {
      const char* const keys = b.ids ? static_cast<const char*>(b.keys) : shared_->view.keys;
      return {keys + at_, p_.row_bytes, left, shared_->rows[pair] + key};
    }
    const Feature& feature = b.features[table_ - 1];
    const bool none = feature.ids && feature.table_rows == 0;
    return {static_cast<const char*>(feature.keys) + at_, feature.row_stride * sizeof(T),
            none ? 0 : left, feature_rows_ + ((table_ - 1) * kPairs + pair) * kPairKeys + key};
  }

  // Begins to copy a panel. Always ends a group.
  __device__ void copy() {
    if (tile_ < Keys::tiles()) {
      copy_candidates();
      const Panel from = panel();
      if (rows_.unit == 16) {
        copy_pieces(from);
      } else if (sizeof(T) == 4 || rows_.unit == 4) {
        copy_words(from,
                   [](uint32_t to, const char* word, int bytes) { copy4_async(to, word, bytes); });
      } else {
        copy_words(from, [](uint32_t to, const char* word, int bytes) {
          const auto half = [&](int i) -> uint32_t {
            return i * 2 < bytes ? __ldg(reinterpret_cast<const uint16_t*>(word) + i) : 0;
          };
          asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(half(0) | half(1) << 16)
                       : "memory");
        });
      }
      at_ += kPanelBytes;
      candidate_at_ += kPanelBytes;
      skip_to_columns();
    }
    end_copy_group();
    target_ = after(target_);
  }

  // The first row that this thread copies pieces of, eight threads a row, and where its piece goes.
  __device__ static int thread_row() { return static_cast<int>(threadIdx.x) / 8; }
  __device__ static int thread_byte() { return static_cast<int>(threadIdx.x) % 8 * 16; }
  __device__ uint32_t thread_place() const {
    return target_ + swizzled<kPanelBytes>(thread_row(), thread_byte() / 16);
  }

  __device__ void copy_candidates() {
    const int byte = candidate_at_ + thread_byte();
    const uint32_t to = thread_place() + kKeyBytes;
    const int count = byte < rows_.candidate_bytes ? count_ : 0;
    const char* from = candidates_ + int64_t{thread_row()} * rows_.candidate_bytes + byte;
#pragma unroll
    for (int i = 0; i < kCandidates; i += kThreadRows) {
      copy16_async(to + i * kPanelBytes, from, thread_row() + i < count ? 16 : 0);
      from += int64_t{kThreadRows} * rows_.candidate_bytes;
    }
  }

  // The row of a table that key `key` of the tile has, or kNoRow. valid: which of its 32 are.
  __device__ static uint32_t row_of(const Panel& from, int key, uint32_t valid) {
    return (valid >> key % kWarp & 1) != 0 ? from.rows[key] : kNoRow;
  }

  __device__ void copy_pieces(const Panel& from) {
    const uint32_t to = thread_place();
    const int key = key_of_row(thread_row());
    const bool inside = thread_byte() < from.left;
#pragma unroll
    for (int i = 0; i < kTileKeys; i += kThreadRows) {
      const uint32_t valid = Keys::valid(tile_, i / kWarpKeys);
      const uint32_t row = row_of(from, key + key_of_row(i), valid);
      copy16_async(to + i * kPanelBytes, from.first + row * from.row_bytes + thread_byte(),
                   inside && row != kNoRow ? 16 : 0);
    }
  }

  // A lane has a word of each row, a warp a row at a time. copy(to, from, bytes of the word).
  template <class Copy>
  __device__ void copy_words(const Panel& from, const Copy& copy) {
    const int byte = lane_index() * 4;
    const int bytes = min(max(from.left - byte, 0), 4);
    const int first = warp_index() * (kTileKeys / kWarps);
    const uint32_t valid = Keys::valid(tile_, first / kWarpKeys);
#pragma unroll 8
    for (int i = 0; i < kTileKeys / kWarps; ++i) {
      const uint32_t row = row_of(from, key_of_row(first + i), valid);
      copy(target_ + swizzled<kPanelBytes>(first + i, byte / 16) + byte % 16,
           from.first + row * from.row_bytes + byte, row != kNoRow ? bytes : 0);
    }
  }

  const SweepRows& rows_;
  const char* candidates_;
  int count_;  // of them
  uint32_t ring_end_;
  uint32_t stage_, target_;  // where a panel is read next, and where one is copied to
  // The panel that is copied next: of a tile; of the behaviours' own rows, table 0, or those of a
  // feature; bytes from the start of such a row, and of a candidate's.
  int tile_ = 0, table_ = 0, at_ = 0, candidate_at_ = 0;
};

}  // namespace longclock
