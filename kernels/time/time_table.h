// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace longclock {

constexpr int kTimeBuckets = 32;

// s of every delta from 0 to period / 2, with the bits that would be computed on the spot, and a
// limit of s for each of a few ranges of deltas, which fit vector registers.
class TimeTable {
 public:
  explicit TimeTable(std::vector<float> values);
  TimeTable(const TimeTable&) = delete;
  TimeTable& operator=(const TimeTable&) = delete;

  const float* s;  // [period / 2 + 1]
  // delta >> bucket_shift is its bucket, whose limit no s of it is above. NaN, which rules nothing
  // out, where one of them is not finite.
  int bucket_shift = 0;
  float limits[kTimeBuckets];

 private:
  std::vector<float> values_;
};

}  // namespace longclock
