// SPDX-License-Identifier: Apache-2.0
// One warp-wide access to memory: resolved, checked and counted before a byte moves.
#pragma once

#include <cstdint>

#include "../machine/warp.h"
#include "../ptx/module.h"

namespace longclock::emulator {

struct Allocation;

struct Access {
  ptx::Space space = ptx::Space::none;  // none: generic; resolved a lane where it differs
  uint32_t bytes = 4;                   // a lane, 1 to 16 (vectors: all elements)
  bool write = false;
  bool read = false;     // atomics: both
  bool strong = false;   // volatile, relaxed, acquire, release, atomic: no data race with its like
  bool silent = false;   // not counted: .param of a call, mbarriers
  bool exempt = false;   // from race checks: the words of mbarriers
  bool tracked = false;  // out: some `undefined` is not nullptr
  uint32_t align = 0;    // of each address; 0: bytes
  uint32_t undefined_address = 0;  // in: lanes whose address is undefined, from gather_addresses
  const std::byte* const* values = nullptr;  // in: what each lane writes; may be nullptr
  uint32_t lanes = 0;                        // in: who accesses
  // In: generic host addresses, or offsets for shared, local and param. check_access turns generic
  // ones into those of their space, and sets `space`, where all lanes are in the same.
  uint64_t address[kWarpLanes];
  // Out, for the lanes that check_access returns:
  std::byte* data[kWarpLanes];       // host memory
  std::byte* undefined[kWarpLanes];  // its undefined bits; nullptr: wholly defined, not tracked
};

// Effective addresses of `instruction`: operand[operand] + immediate. A 32-bit base is an offset.
void gather_addresses(const Warp& warp, const Instruction& instruction, unsigned operand,
                      Access& access);

// Resolves addresses; reports and drops lanes whose address is undefined, outside, misaligned,
// freed or const; checks races; counts requests, sectors and wavefronts. Returns the lanes that may
// go on. Without checks only addresses are resolved.
uint32_t check_access(Warp& warp, const Instruction& instruction, Access& access);

}  // namespace longclock::emulator
