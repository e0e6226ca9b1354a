// SPDX-License-Identifier: Apache-2.0
// The best k of a selection's entries, in order. With vectors of eight entries
// that have a minimum and a maximum, a bitonic network sorts them: it has no branch that depends on
// the data, so it takes as long whatever the order of the entries, and however cold the predictor.
#pragma once

#include "longclock/common/simd-inl.h"
#include "longclock/selection/selection.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

#if defined(__AVX512F__)

inline constexpr int64_t kVectorEntries = 8;
inline constexpr int64_t kMaxNetworkEntries = 256;  // that are kept

// The masked forms, which take all lanes, because GCC 12 warns of the others.
inline constexpr __mmask8 kAllEntries = 0xff;
inline __m512i greater(__m512i a, __m512i b) { return _mm512_maskz_max_epu64(kAllEntries, a, b); }
inline __m512i lesser(__m512i a, __m512i b) { return _mm512_maskz_min_epu64(kAllEntries, a, b); }
// Within each half of four.
template <int order>
inline __m512i permuted(__m512i v) {
  return _mm512_maskz_permutex_epi64(kAllEntries, v, order);
}
inline __m512i reversed(__m512i v) {
  return _mm512_maskz_permutexvar_epi64(kAllEntries, _mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7), v);
}
inline __m512i halves_swapped(__m512i v) {
  return _mm512_maskz_shuffle_i64x2(kAllEntries, v, v, 0x4e);
}

// Each lane with its partner's: the larger entry to the lane that comes first. `second`: the lanes
// that do not.
inline __m512i exchanged(__m512i v, __m512i partner, __mmask8 second) {
  return _mm512_mask_min_epu64(greater(v, partner), second, v, partner);
}
inline __m512i neighbours_exchanged(__m512i v) { return exchanged(v, permuted<0xb1>(v), 0xaa); }
inline __m512i pairs_exchanged(__m512i v) { return exchanged(v, permuted<0x4e>(v), 0xcc); }
// At distances of four, two and one: puts a vector that falls and rises into descending order.
inline __m512i lanes_exchanged(__m512i v) {
  v = exchanged(v, halves_swapped(v), 0xf0);
  return neighbours_exchanged(pairs_exchanged(v));
}

// A vector in descending order.
inline __m512i sorted_vector(__m512i v) {
  v = neighbours_exchanged(v);
  v = exchanged(v, permuted<0x1b>(v), 0xcc);  // fours, from the outside in
  v = neighbours_exchanged(v);
  v = exchanged(v, reversed(v), 0xf0);
  return neighbours_exchanged(pairs_exchanged(v));
}

inline __m512i load_entries(const TopKEntry* from) { return _mm512_loadu_si512(from); }
inline void store_entries(__m512i v, TopKEntry* to) { _mm512_storeu_si512(to, v); }

// Puts n entries that fall and then rise, or the other way, into descending order. n: a power of
// two, a vector at least.
inline void sort_bitonic(TopKEntry* entries, int64_t n) {
  for (int64_t stride = n / 2; stride >= kVectorEntries; stride /= 2) {
    for (int64_t at = 0; at < n; at += 2 * stride) {
      for (int64_t i = at; i < at + stride; i += kVectorEntries) {
        const __m512i a = load_entries(entries + i), b = load_entries(entries + i + stride);
        store_entries(greater(a, b), entries + i);
        store_entries(lesser(a, b), entries + i + stride);
      }
    }
  }
  for (int64_t i = 0; i < n; i += kVectorEntries) {
    store_entries(lanes_exchanged(load_entries(entries + i)), entries + i);
  }
}

// Two runs in descending order, of n entries and of m <= n: the n largest into the first, the
// others into the second, each in descending order; or, where `rest` is false, the second left as
// it comes.
inline void merge_runs(TopKEntry* first, int64_t n, TopKEntry* second, int64_t m, bool rest) {
  for (int64_t i = 0; i < m; i += kVectorEntries) {
    TopKEntry* from = first + n - m + i;
    TopKEntry* opposite = second + m - kVectorEntries - i;
    const __m512i a = load_entries(from), b = reversed(load_entries(opposite));
    store_entries(greater(a, b), from);
    if (rest) store_entries(reversed(lesser(a, b)), opposite);
  }
  sort_bitonic(first, n);
  if (rest) sort_bitonic(second, m);
}

// Puts 64 entries into descending order, in registers.
inline constexpr int64_t kRegisterEntries = 8 * kVectorEntries;
inline void sort_in_registers(TopKEntry* entries) {
  constexpr int kVectors = 8;
  __m512i v[kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) v[i] = sorted_vector(load_entries(entries + 8 * i));
#pragma GCC unroll 3
  for (int run = 1; run < kVectors; run *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {  // first and second runs, from the outside in
      if ((i & run) != 0) continue;
      const int opposite = i ^ (2 * run - 1);
      const __m512i a = v[i], b = reversed(v[opposite]);
      v[i] = greater(a, b);
      v[opposite] = reversed(lesser(a, b));
    }
#pragma GCC unroll 3
    for (int stride = run / 2; stride > 0; stride /= 2) {
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) {
        if ((i & stride) != 0) continue;
        const __m512i a = v[i], b = v[i + stride];
        v[i] = greater(a, b);
        v[i + stride] = lesser(a, b);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) v[i] = lanes_exchanged(v[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) store_entries(v[i], entries + 8 * i);
}

// Puts n entries, a power of two and kRegisterEntries at least, into descending order.
inline void sort_run(TopKEntry* entries, int64_t n) {
  for (int64_t i = 0; i < n; i += kRegisterEntries) sort_in_registers(entries + i);
  for (int64_t run = kRegisterEntries; run < n; run *= 2) {
    for (int64_t i = 0; i < n; i += 2 * run) {
      merge_runs(entries + i, run, entries + i + run, run, /*rest=*/true);
    }
  }
}

// Moves the k <= kMaxNetworkEntries largest of n entries to the front, in descending order. There
// is room for n rounded up to a multiple of kMaxNetworkEntries.
inline void sort_by_network(TopKEntry* entries, int64_t n, int64_t k) {
  const auto run_for = [](int64_t count) {
    int64_t run = kRegisterEntries;
    while (run < count) run *= 2;
    return run;
  };
  const int64_t kept = run_for(k);
  for (int64_t i = n; i < round_up(n, kept); ++i) entries[i] = 0;
  sort_run(entries, kept);
  for (int64_t at = kept; at < n; at += kept) {
    const int64_t more = run_for(min_of(n - at, kept));
    sort_run(entries + at, more);
    merge_runs(entries, kept, entries + at, more, /*rest=*/false);
  }
}

#endif

// Moves the k largest of n entries to the front, in descending order; returns how many those are.
// entries has room for n + 255.
inline int64_t sort_largest(TopKEntry* entries, int64_t n, int64_t k) {
#if defined(__AVX512F__)
  if (k <= kMaxNetworkEntries && n > 1) {
    sort_by_network(entries, n, k);
    return min_of(n, k);
  }
#endif
  return sort_best(entries, n, k);
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
