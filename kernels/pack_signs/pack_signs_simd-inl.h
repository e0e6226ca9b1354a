// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/common/lanes-inl.h"
#include "longclock/common/memory-inl.h"
#include "longclock/pack_signs/pack_signs.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// A vector's comparison with 0 is a bit a lane.
template <class T>
void pack(const PackSignsParams& p, int64_t begin, int64_t end) {
  uint64_t* out = p.out + begin * sign_words(p.columns);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(p.x) + row * p.columns;
    for (int64_t column = 0; column < p.columns; column += 64) {
      const int64_t columns = min_of(p.columns - column, 64);
      uint64_t word = 0;
      int64_t i = 0;
      for (; i + kLanes <= columns; i += kLanes) {
        word |= uint64_t{bitmask(load(x + column + i) > 0.0f)} << i;
      }
      if (i < columns) {
        word |= uint64_t{bitmask(load_partial(x + column + i, columns - i) > 0.0f)} << i;
      }
      *out++ = word;
    }
  }
}

}  // namespace

void pack_signs(const PackSignsParams& p, int64_t begin, int64_t end) {
  LONGCLOCK_WITH_DTYPE(p.dtype, T, pack<T>(p, begin, end));
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(pack_signs, PackSignsParams)
