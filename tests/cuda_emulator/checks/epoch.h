// SPDX-License-Identifier: Apache-2.0
// One access in 64 bits: who, when, how.
#pragma once

#include <cstdint>

namespace longclock::emulator {

struct Epoch {
  static constexpr unsigned kAgentBits = 19, kClockBits = 20, kLaunchBits = 13;
  static constexpr uint32_t kMaxClock = (1u << kClockBits) - 1;
  static constexpr uint32_t kMaxAgents = 1u << kAgentBits;

  uint32_t agent;  // warp of the grid
  uint32_t clock;  // of that warp; from 1 on, so that no access is 0
  uint32_t lane;
  uint32_t bytes;  // of the 4, a mask
  bool strong;
  bool several;  // other lanes of the warp as well
  bool pending;  // the target of a cp.async that nobody waited for
  uint32_t launch;

  uint64_t pack() const {
    return uint64_t{agent} | uint64_t{clock} << 19 | uint64_t{lane} << 39 | uint64_t{bytes} << 44 |
           uint64_t{strong} << 48 | uint64_t{several} << 49 | uint64_t{pending} << 50 |
           uint64_t{launch} << 51;
  }
  static Epoch unpack(uint64_t p) {
    const auto field = [p](unsigned at, unsigned bits) {
      return static_cast<uint32_t>(p >> at & ((uint64_t{1} << bits) - 1));
    };
    return {field(0, 19),      field(19, 20),     field(39, 5),      field(44, 4),
            field(48, 1) != 0, field(49, 1) != 0, field(50, 1) != 0, field(51, 13)};
  }
  // Nothing to compare with: nobody, an earlier launch, or other bytes.
  static bool apart(uint64_t p, uint32_t bytes, uint32_t launch) {
    return p == 0 || p >> 51 != launch || (p >> 44 & 0xf & bytes) == 0;
  }
};

}  // namespace longclock::emulator
