// SPDX-License-Identifier: Apache-2.0
#include "longclock/time/time_table.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

namespace longclock {
namespace {

// Between a float's bits and an integer in the same order; the way back is the same.
int32_t ordered(int32_t bits) { return bits ^ (bits >> 31 & std::numeric_limits<int32_t>::max()); }

// By integers, whose maximum compilers vectorize. -inf for none.
float limit_of(const float* s, size_t n) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr auto kExponent = std::bit_cast<int32_t>(kInfinity);
  int32_t largest = ordered(std::bit_cast<int32_t>(-kInfinity)), not_finite = 0;
  for (size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<int32_t>(s[i]);
    not_finite |= (bits & kExponent) == kExponent;
    largest = std::max(largest, ordered(bits));
  }
  if (not_finite != 0) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(ordered(largest));
}

}  // namespace

TimeTable::TimeTable(std::vector<float> values, bool elapsed, bool many)
    : elapsed(elapsed),
      many(many),
      values_(std::move(values)),
      limits_(static_cast<size_t>(many ? kManyTimeBuckets : kTimeBuckets)) {
  s = values_.data();
  limits = limits_.data();
  const size_t size = values_.size(), buckets = limits_.size();
  while ((size - 1) >> bucket_shift >= buckets) ++bucket_shift;
  for (size_t bucket = 0; bucket < buckets; ++bucket) {
    const size_t begin = std::min(size, bucket << bucket_shift);
    const size_t end = std::min(size, (bucket + 1) << bucket_shift);
    limits_[bucket] = limit_of(s + begin, end - begin);
  }
}

}  // namespace longclock
