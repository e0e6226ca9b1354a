// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "longclock/block_topk/block_topk.h"
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/common/scratch.h"
#include "longclock/selection/sort_largest-inl.h"
#include "longclock/selection/topk_buffer-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// Rows up to this long are read twice, the second time from a cache.
constexpr int64_t kMaxFolded = 65536;

struct Workspace {
  Workspace(int64_t k, Scratch* scratch)
      : entries(scratch->take<TopKEntry>(topk_capacity(k))),
        maxima(scratch->take<float>(fold_lanes(k))),
        codes(scratch->take<uint8_t>(fold_lanes(k))) {}
  TopKEntry* entries;
  float* maxima;
  uint8_t* codes;
};

// One pass over a part of a row. 32-bit scores are read where they lie, others through a block that
// stays in the first-level cache.
template <class T>
void select_part(const T* row, int64_t begin, int64_t end, TopKBuffer* best) {
  alignas(64) float block[kTopKBlock];
  for (int64_t at = begin; at < end; at += kTopKBlock) {
    const int64_t n = min_of(kTopKBlock, end - at);
    if constexpr (sizeof(T) == 4) {
      if (n == kTopKBlock) {
        best->push(row + at, nullptr, n, at);
        continue;
      }
    }
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(load(row + at + i), block + i);
    if (i < n) store(load_partial(row + at + i, n - i), block + i);
    best->push(block, nullptr, n, at);
  }
}

// A threshold that somewhat more than k scores of [begin, end) should pass, from evenly spaced
// ones; NaN where sampling does not pay.
template <class T>
float sampled_threshold(const T* row, int64_t begin, int64_t end, int64_t k) {
  constexpr int64_t kSamples = 512;
  const int64_t step = (end - begin) / kSamples;
  if (step < 8) return __builtin_nanf("");
  static_assert(kSamples % kByteLanes == 0);
  const int64_t rank = sampled_rank(static_cast<float>(k) / static_cast<float>(step));
  if (rank > kSamples / 2) return __builtin_nanf("");
  alignas(64) float samples[kSamples];
  alignas(64) uint8_t codes[kSamples];
  for (int64_t i = 0; i < kSamples; ++i) samples[i] = to_float(row[begin + i * step]);
  // Ties of the sample pass as well.
  return TopKBuffer::below(reached_by(samples, kSamples, rank, codes));
}

// A score that k of [begin, end) reach: the row is folded to 2 k lane maxima or more, of which k
// reach it, each a score of its own. NaN where folding does not pay.
template <class T>
float folded_bar(const T* row, int64_t begin, int64_t end, int64_t k, float* maxima,
                 uint8_t* codes) {
  const int64_t lanes = fold_lanes(k), n = end - begin;
  if (n < 4 * lanes || n > kMaxFolded) return __builtin_nanf("");
  for (int64_t i = 0; i < lanes; i += kLanes) {
    Vf largest = load(row + begin + i);
    for (int64_t at = begin + i + lanes; at + kLanes <= end; at += lanes) {
      const Vf x = load(row + at);
      largest = x > largest ? x : largest;
    }
    store(largest, maxima + i);
  }
  return reached_by(maxima, lanes, k, codes);
}

template <class T>
TopKBuffer select(const T* row, int64_t begin, int64_t end, int64_t k, Workspace* w) {
  const float least = folded_bar(row, begin, end, k, w->maxima, w->codes);
  if (least == least) {
    TopKBuffer best = TopKBuffer::reaching(w->entries, k, least);
    select_part(row, begin, end, &best);
    return best;
  }
  const float threshold = sampled_threshold(row, begin, end, k);
  if (threshold == threshold) {
    TopKBuffer best(w->entries, k, threshold);
    select_part(row, begin, end, &best);
    if (best.size() >= k) return best;
  }
  TopKBuffer best(w->entries, k);
  select_part(row, begin, end, &best);
  return best;
}

constexpr uint16_t kMinusInfinity16[] = {0xfc00, 0xff80};  // fp16, bf16

// Copies the chosen scores, so that their bits (a -0, a NaN's payload) are the input's.
template <class Score>
void copy_scores(const BlockTopKParams& p, int64_t row, int64_t n, Score none) {
  const Score* from = static_cast<const Score*>(p.scores) + row * p.row_stride;
  Score* to = static_cast<Score*>(p.top_scores) + row * p.k;
  const int64_t* indices = p.indices + row * p.k;
  for (int64_t i = 0; i < n; ++i) to[i] = from[indices[i]];
  for (int64_t i = n; i < p.k; ++i) to[i] = none;
}

// The best of a row, n <= k of them in order, into the outputs.
inline void write_row(const BlockTopKParams& p, int64_t row, const TopKEntry* best, int64_t n) {
  int64_t* indices = p.indices + row * p.k;
  for (int64_t i = 0; i < n; ++i) indices[i] = entry_index(best[i]);
  for (int64_t i = n; i < p.k; ++i) indices[i] = -1;
  if (p.dtype == DType::kFloat32) {
    copy_scores<float>(p, row, n, -__builtin_inff());
  } else {
    copy_scores<uint16_t>(p, row, n, kMinusInfinity16[p.dtype == DType::kBFloat16]);
  }
}

}  // namespace

void block_topk(const BlockTopKParams& p, int64_t begin, int64_t end) {
  Scratch scratch;
  Workspace workspace(p.k, &scratch);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t row = task / p.parts, part = task % p.parts;
    const int64_t length = p.lengths ? p.lengths[row] : p.columns;
    const int64_t part_length = (length + p.parts - 1) / p.parts;
    const int64_t first = min_of(length, part * part_length);
    const int64_t last = min_of(length, first + part_length);
    TopKBuffer best;
    LONGCLOCK_WITH_DTYPE(p.dtype, T,
                         const T* scores = static_cast<const T*>(p.scores) + row * p.row_stride;
                         best = select<T>(scores, first, last, p.k, &workspace));
    if (p.parts == 1) {
      write_row(p, row, best.entries(), sort_largest(best.entries(), best.size(), p.k));
      continue;
    }
    const int64_t count = best.keep_best();
    TopKEntry* out = p.entries + task * p.k;
    for (int64_t i = 0; i < p.k; ++i) out[i] = i < count ? best.entries()[i] : 0;
  }
}

void block_topk_merge(const BlockTopKParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    TopKEntry* entries = p.entries + row * p.parts * p.k;
    int64_t n = sort_best(entries, p.parts * p.k, p.k);
    while (n > 0 && entries[n - 1] == 0) --n;  // padding
    write_row(p, row, entries, n);
  }
}

void block_topk_backward(const BlockTopKBackwardParams& p, int64_t begin, int64_t end) {
  const int64_t size = size_of(p.dtype), row_size = p.columns * size;
  const char* grad = static_cast<const char*>(p.grad);
  for (int64_t row = begin; row < end; ++row) {
    char* out = static_cast<char*>(p.out) + row * row_size;
    for (int64_t i = 0; i < row_size; ++i) out[i] = 0;
    for (int64_t i = row * p.k; i < (row + 1) * p.k; ++i) {
      if (p.indices[i] < 0) continue;
      std::memcpy(out + p.indices[i] * size, grad + i * size, static_cast<size_t>(size));
    }
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(block_topk, BlockTopKParams)
LONGCLOCK_CPU_ENTRY(block_topk_merge, BlockTopKParams)
LONGCLOCK_CPU_ENTRY(block_topk_backward, BlockTopKBackwardParams)
