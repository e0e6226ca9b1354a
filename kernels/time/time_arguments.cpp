// SPDX-License-Identifier: Apache-2.0
#include "longclock/time/time_arguments.h"

#include "longclock/common/value_checks.h"

namespace longclock {

void read_clocks(const char* op, std::span<const int64_t> periods, std::span<const double> units,
                 TimeTerm* time) {
  const size_t clocks = periods.size();
  check(clocks >= 1 && clocks <= kMaxClocks, op, ": periods must be of 1 to ", kMaxClocks,
        " clocks, got ", clocks);
  check(units.size() == clocks, op, ": units must be one for each of periods, ", clocks, ", got ",
        units.size());
  for (size_t c = 0; c < clocks; ++c) {
    check(periods[c] >= 0 && periods[c] <= 2147483647, op,
          ": periods must be from 1 to 2147483647 seconds, or 0 for the time elapsed, got ",
          periods[c], "; a day is 86400");
    check_unit(op, units[c], "units");
    time->clock[c].period = periods[c];
    time->clock[c].mlp.unit = units[c];
    time->clock[c].mlp.elapsed = periods[c] == kElapsed;
  }
  time->clocks = static_cast<int>(clocks);
}

void read_parameters(const float* w1, const float* b1, const float* w2, const float* b2, int hidden,
                     TimeTerm* time) {
  for (int64_t c = 0; c < time->clocks; ++c) {
    TimeMlp& mlp = time->clock[c].mlp;
    mlp.w1 = w1 + c * hidden * kTimeFeatures;
    mlp.b1 = b1 + c * hidden;
    mlp.w2 = w2 + c * hidden;
    mlp.b2 = b2 + c;
    mlp.hidden = hidden;
  }
}

}  // namespace longclock
