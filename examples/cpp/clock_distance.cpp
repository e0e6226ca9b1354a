// SPDX-License-Identifier: Apache-2.0
// How far each past event lies from 23:00 on a 24-hour clock, in minutes.
#include <longclock/circular_delta/circular_delta.h>
#include <longclock/common/simd_level.h>

#include <cstdint>
#include <cstdio>

int main() {
  const int64_t now[] = {23 * 3600};
  const int64_t events[] = {1 * 3600, 11 * 3600, 22 * 3600 + 1800, -3600};
  int64_t distance[4];

  longclock::CircularDeltaParams params{};
  params.a = {events, true};
  params.b = {now, true};
  params.dims = 1;
  params.sizes[0] = 4;
  params.a_strides[0] = 1;
  params.b_strides[0] = 0;  // one time against all events
  params.period = 86400;
  params.out = distance;
  longclock::circular_delta_cpu(params, 0, 4);

  for (const int64_t seconds : distance) {
    std::printf("%lld\n", static_cast<long long>(seconds / 60));
  }
  std::fprintf(stderr, "SIMD level: %s\n", longclock::name(longclock::simd_level()));
}
