// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "longclock/common/inline.h"
#include "longclock/time/clock.h"

namespace longclock {

constexpr int kTimeBuckets = 32;
constexpr int kManyTimeBuckets = 1024;

// s of every delta from 0 to period / 2, or of every place of the time elapsed, with the bits that
// would be computed on the spot, and a limit of s for each of a few ranges of places, which fit
// vector registers; or of many, which fit the first-level cache, where s goes up and down as that
// of several clocks does.
class TimeTable {
 public:
  explicit TimeTable(std::vector<float> values, bool elapsed = false, bool many = false);
  TimeTable(const TimeTable&) = delete;
  TimeTable& operator=(const TimeTable&) = delete;

  const float* s;  // [period / 2 + 1], or [kElapsedPlaces]
  bool elapsed;    // a delta's place is elapsed_place(), else the delta itself
  bool many;       // kManyTimeBuckets limits, else kTimeBuckets
  // Its place >> bucket_shift is its bucket, whose limit no s of it is above. NaN, which rules
  // nothing out, where one of them is not finite.
  int bucket_shift = 0;
  const float* limits;

  LONGCLOCK_INLINE float of(int32_t delta) const {
    return s[elapsed ? elapsed_place(delta) : delta];
  }

 private:
  std::vector<float> values_, limits_;
};

}  // namespace longclock
