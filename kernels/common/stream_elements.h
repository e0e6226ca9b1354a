// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace longclock {

// An output with more elements than this, 8 MB, is written past the caches: the second level does
// not hold it.
constexpr int64_t kStreamElements = int64_t{1} << 21;

}  // namespace longclock
