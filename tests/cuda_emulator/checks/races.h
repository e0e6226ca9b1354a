// SPDX-License-Identifier: Apache-2.0
// Data races by happens-before. Within a block: a vector clock a warp, joined at barriers, and
// within a warp an epoch of the last __syncwarp of each lane. Between blocks: fences and strong
// (atomic, volatile, relaxed, acquire, release) accesses, as in the PTX memory model: a strong
// write after a fence (or a release) publishes what its warp knew at that fence; a fence (or
// acquire) after the strong read takes it over. Two strong accesses never race.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../memory/access.h"
#include "../memory/race_cell.h"

namespace longclock::emulator {

struct Block;
struct Grid;

// A launch's: who is who between blocks, and what was published at which address.
class GridRaces {
 public:
  explicit GridRaces(const Grid& grid);
  ~GridRaces();
  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

class BlockRaces {
 public:
  explicit BlockRaces(Block& block);
  ~BlockRaces();
  struct State;
  State& state() { return *state_; }

  // The warps of the mask met at a barrier (bar.sync, bar.red; also grid-wide ones through their
  // atomics).
  void barrier(uint32_t warps);
  // The lanes met at a __syncwarp.
  void sync_warp(Warp& warp, uint32_t lanes);
  void fence(Warp& warp);  // of whatever scope
  // Order of one strong access, around its effect: acquire after a read, release before a write.
  void acquire(Warp& warp, const Access& access, uint32_t lanes);
  void release(Warp& warp, const Access& access, uint32_t lanes);
  // Strong accesses without an order of their own: they still carry fences.
  void relaxed_read(Warp& warp, const Access& access, uint32_t lanes);
  void relaxed_write(Warp& warp, const Access& access, uint32_t lanes);

 private:
  std::unique_ptr<State> state_;
};

// Checks an access against the cells of what it touches and records it there. `cells[l]`: of the
// first 4-byte word that lane l touches. Reports conflicts. `values`: for writes, the data of each
// lane, so that lanes of one instruction that write the same value to the same place pass; may be
// nullptr.
void check_races(Warp& warp, const Instruction& instruction, const Access& access, uint32_t lanes,
                 RaceCell* const cells[kWarpLanes], const std::byte* const* values);
// cp.async: from its issue to its wait the bytes belong to nobody; any access in between is
// reported.
void mark_async_pending(Warp& warp, RaceCell* cell, uint32_t bytes, uint32_t pc);

}  // namespace longclock::emulator
