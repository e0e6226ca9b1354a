// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/time/clock.h"
#include "longclock/time/time_mlp.h"
#include "longclock/time/time_table.h"

namespace longclock {

// A clock, and what it adds to s().
struct TimeClock {
  int64_t period;  // seconds, or kElapsed
  TimeMlp mlp;
  bool unread;  // on the CPU: the table of another clock has its s, so nobody asks for its deltas
};

// A table of s and the clock by whose delta it is looked up.
struct TimeLookup {
  const TimeTable* table;
  int clock;
};

// s() of a search: the sum over its clocks, in order. Their parameters lie one clock's after the
// other's, and all have as many hidden units.
struct TimeTerm {
  int clocks;  // 1..kMaxClocks
  TimeClock clock[kMaxClocks];
  // On the CPU: s is the sum of these look-ups, in order, or computed on the spot where there are
  // none.
  int lookups;
  TimeLookup lookup[kMaxClocks];

  LONGCLOCK_INLINE int features() const { return clocks * kTimeFeatures; }
};

// A clock as kernels of a device read it: made on the host.
struct DeviceClock {
  Clock clock;
  double per_unit;  // 1 / unit
};

LONGCLOCK_INLINE void make_device_clocks(const TimeTerm& time, DeviceClock* out) {
  for (int c = 0; c < time.clocks; ++c) {
    out[c] = {make_clock(time.clock[c].period), 1.0 / time.clock[c].mlp.unit};
  }
}

}  // namespace longclock
