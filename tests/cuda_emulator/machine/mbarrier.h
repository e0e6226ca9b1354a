// SPDX-License-Identifier: Apache-2.0
// mbarrier objects: 64 bits in shared memory, in an encoding of our own, which PTX leaves open.
// An arrival is a release and a wait that succeeds an acquire, so that races see through them; the
// word itself is exempt from race checks.
#pragma once

#include <cstdint>

#include "../memory/access.h"
#include "decode.h"

namespace longclock::emulator {

Handler select_mbarrier(Decode& d);

// For copies that end at an mbarrier. `a`: with space and addresses; returns the lanes whose word
// can be used.
uint32_t check_mbarrier(Warp& warp, const Instruction& instruction, Access& a);
// One arrival of the lane.
void arrive_at(Warp& warp, const Instruction& instruction, const Access& a, unsigned lane,
               uint32_t count);
void complete_bytes(Warp& warp, const Access& a, unsigned lane, uint64_t bytes);

}  // namespace longclock::emulator
