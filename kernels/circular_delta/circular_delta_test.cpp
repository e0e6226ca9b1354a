// SPDX-License-Identifier: Apache-2.0
#include "longclock/circular_delta/circular_delta.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>
#include <vector>

#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

int64_t expected_delta(int64_t a, int64_t b, int64_t period) {
  const auto clock = [period](int64_t t) { return (t % period + period) % period; };
  const int64_t x = std::llabs(clock(a) - clock(b));
  return std::min(x, period - x);
}

template <class Int>
void compare(const std::vector<Int>& times, int64_t period) {
  const int64_t n = static_cast<int64_t>(times.size());
  std::vector<Int> out(static_cast<size_t>(n * n));
  CircularDeltaParams p{};
  p.a = p.b = {times.data(), sizeof(Int) == 8};
  p.dims = 2;  // every pair: a down the rows, b along them
  p.sizes[0] = p.sizes[1] = n;
  p.a_strides[0] = 1;
  p.b_strides[1] = 1;
  p.period = period;
  p.out = out.data();
  circular_delta_cpu(p, 0, n * n / 3);  // in two ranges, cut within a row
  circular_delta_cpu(p, n * n / 3, n * n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      ASSERT_EQ(out[i * n + j], expected_delta(times[i], times[j], period))
          << times[i] << " " << times[j] << " " << period;
    }
  }
}

TEST(CircularDelta, AgreesWithTheDefinition) {
  for_each_level([] {
    for (int64_t period : {1, 2, 3, 7, 86399, 86400, 604800, 1 << 30, 2147483646, 2147483647}) {
      std::vector<int32_t> narrow = {0, 1, -1, 82800, 3600, 86399, 86400, -86400, 1700000000};
      std::vector<int64_t> wide(narrow.begin(), narrow.end());
      for (int64_t near : {period, 2 * period, 3 * period}) {
        for (int64_t step : {-1, 0, 1}) wide.insert(wide.end(), {near + step, -near - step});
      }
      for (int64_t i = 0; i < 40; ++i) narrow.push_back(static_cast<int32_t>(i * 104395301));
      narrow.insert(narrow.end(),
                    {std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()});
      // Up to where differences of doubles are exact, and on both sides of halves of the period.
      constexpr int64_t kFar = int64_t{1} << 50;
      for (int64_t i = 0; i < 40; ++i) wide.push_back(i * 57721566490153 % (2 * kFar) - kFar);
      for (int64_t near : {period / 2, kFar / period * period + period / 2}) {
        for (int64_t step : {-1, 0, 1}) {
          if (near + step < kFar) wide.insert(wide.end(), {near + step, -near - step});
        }
      }
      wide.insert(wide.end(), {int64_t{1} << 31, -(int64_t{1} << 31), kFar - 1, -kFar});
      compare(narrow, period);
      compare(wide, period);
      wide.insert(wide.end(),
                  {kFar, -kFar - 1, 2 * kFar, -2 * kFar, std::numeric_limits<int64_t>::min(),
                   std::numeric_limits<int64_t>::max()});
      compare(wide, period);
    }
  });
}

}  // namespace
}  // namespace longclock
