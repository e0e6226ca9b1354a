// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../emulator.h"
#include "../machine/warp.h"

namespace longclock::emulator {

// Kinds of faults and the cudaError_t that a launch with one returns.
enum class Fault : uint8_t {
  out_of_bounds,  // 700
  freed,          // 700
  read_only,      // 700
  misaligned,     // 716
  uninitialised,  // 719 from here on
  race,
  async_race,  // cp.async data before its wait
  divergent_barrier,
  mismatched_barrier,
  missing_lanes,  // *.sync
  deadlock,
  trap,
  assertion,            // 710
  unknown_instruction,  // 715
  leak,
};

// Adds a report about `lane` of `warp` at `instruction`. Thread-safe. The first report of a kind at
// an instruction is kept with `message`; more of them only count. Sets Grid::error.
void report(Warp& warp, const Instruction& instruction, unsigned lane, Fault fault,
            uint64_t address, const std::string& message);
std::string_view fault_name(Fault fault);
int fault_error(Fault fault);
// "file:line" of an instruction, for messages that point to a second place.
std::string source_of(const Program& program, uint32_t pc);
// The same with the places that it was inlined at, outwards; empty without -lineinfo.
std::vector<std::string> places_of(const Program& program, uint32_t pc);
std::string_view space_name(uint8_t space);

// A report that belongs to no instruction (leaks).
void add_report(Report report);

}  // namespace longclock::emulator
