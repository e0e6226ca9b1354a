// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace longclock::emulator {

// Who touched 4 bytes last: one write and two reads by different warps, each packed as an epoch
// (see races.h); 0: nobody. Used for shared memory by its block alone and for global memory by all
// workers at once, without locks: a lost update can hide a race, never invent one.
struct RaceCell {
  uint64_t write;
  uint64_t reads[2];
  uint32_t write_pc;  // for the report
  uint32_t read_pc;
};
static_assert(sizeof(RaceCell) == 32);

}  // namespace longclock::emulator
