// SPDX-License-Identifier: Apache-2.0
// Loops over the 32 lanes of a warp, written so that compilers vectorise them.
#pragma once

#include <bit>
#include <cstring>
#include <tuple>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "warp.h"

namespace longclock::emulator {

// One bool a lane, 0 or 0xff, to a mask.
inline uint32_t pack_lanes(const uint8_t* bools) {
#if defined(__AVX2__)
  return static_cast<uint32_t>(
      _mm256_movemask_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bools))));
#else
  uint32_t mask = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) mask |= static_cast<uint32_t>(bools[l] & 1) << l;
  return mask;
#endif
}

// Writes values of the lanes of the mask to a row.
template <class T>
inline void store_lanes(T* row, const T* values, uint32_t lanes) {
  if (lanes == kAllLanes) {
    std::memcpy(row, values, sizeof(T) * kWarpLanes);
    return;
  }
  for (unsigned l = 0; l < kWarpLanes; ++l) row[l] = (lanes >> l) & 1 ? values[l] : row[l];
}

// result[0] = f(sources...) in every lane. Sources may share their row with the result.
template <class R, class... A, class F>
inline void map_lanes(Warp& w, const Instruction& in, uint32_t lanes, F f) {
  [&]<size_t... I>(std::index_sequence<I...>) {
    const std::tuple<const A*...> rows{w.source<A>(in.operands[1 + I])...};
    alignas(64) R values[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) values[l] = f(std::get<I>(rows)[l]...);
    store_lanes(w.result<R>(in.operands[0]), values, lanes);
  }(std::index_sequence_for<A...>{});
}

// The lanes where f(sources...) holds; the sources begin at operands[first].
template <class... A, class F>
inline uint32_t test_lanes(Warp& w, const Instruction& in, unsigned first, F f) {
  return [&]<size_t... I>(std::index_sequence<I...>) {
    const std::tuple<const A*...> rows{w.source<A>(in.operands[first + I])...};
    alignas(32) uint8_t bools[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) bools[l] = f(std::get<I>(rows)[l]...) ? 0xff : 0;
    return pack_lanes(bools);
  }(std::index_sequence_for<A...>{});
}

// Calls f(lane) for each lane of the mask.
template <class F>
inline void for_lanes(uint32_t lanes, F f) {
  for (; lanes != 0; lanes &= lanes - 1) f(static_cast<unsigned>(std::countr_zero(lanes)));
}

}  // namespace longclock::emulator
