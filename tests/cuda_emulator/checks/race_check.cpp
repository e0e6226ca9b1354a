// SPDX-License-Identifier: Apache-2.0
// Compares each access with those before it. The common case, a word that the same lane touched or
// whose last access is known, must cost next to nothing.
#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "../machine/lanes.h"
#include "../machine/program.h"
#include "race_state.h"
#include "report.h"

namespace longclock::emulator {
namespace {

uint64_t load(const uint64_t& word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }
void store(uint64_t& word, uint64_t value) { __atomic_store_n(&word, value, __ATOMIC_RELAXED); }

std::string three(uint64_t x, uint64_t y, uint64_t z) {
  return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

// One warp's view during one access.
class Checker {
 public:
  Checker(Warp& w, const Instruction& in, const Access& access, const std::byte* const* values)
      : w_(w),
        in_(in),
        access_(access),
        values_(values),
        state_(w.block->races->state()),
        me_(state_.warps[w.index]),
        agent_(state_.first_agent + w.index),
        launch_(state_.all->launch),
        pc_(static_cast<uint32_t>(&in - w.block->grid->program->code.data())) {}

  void check(unsigned lane, RaceCell* cell, uint32_t offset) {
    uint32_t left = access_.bytes;
    for (uint32_t at = offset & 3; left != 0; at = 0, ++cell) {
      const uint32_t take = std::min(left, 4 - at);
      word(lane, *cell, ((1u << take) - 1) << at);
      left -= take;
    }
  }

 private:
  void word(unsigned lane, RaceCell& cell, uint32_t bytes) {
    const uint64_t write = load(cell.write);
    if (!Epoch::apart(write, bytes, launch_)) against(lane, write, cell.write_pc, true);
    uint64_t mine =
        Epoch{agent_, me_.clock, lane, bytes, access_.strong, false, false, launch_}.pack();
    if (!access_.write) {
      remember_read(cell, mine);
      return;
    }
    for (uint64_t& read : cell.reads) {
      const uint64_t other = load(read);
      if (other == 0) continue;
      if (!Epoch::apart(other, bytes, launch_)) against(lane, other, cell.read_pc, false);
      // A later write that knows this one knows its readers too; of other bytes the reads stay.
      if (Epoch::apart(other, ~bytes & 0xf, launch_)) store(read, 0);
    }
    store(cell.write, mine);
    cell.write_pc = pc_;
  }

  // Two reads by warps that do not know of each other are kept; one that is known gives way.
  void remember_read(RaceCell& cell, uint64_t mine) {
    const uint64_t first = load(cell.reads[0]);
    unsigned slot = 0;
    if (first != 0 && first >> 51 == launch_) {
      const Epoch e = Epoch::unpack(first);
      if (e.agent == agent_) {
        if (e.clock == me_.clock && (e.lane != (mine >> 39 & 31) || e.several))
          mine |= uint64_t{1} << 49;
        if (e.clock == me_.clock && !access_.strong) mine |= uint64_t{e.bytes} << 44;
      } else if (!known(e)) {
        slot = 1;
      }
    }
    store(cell.reads[slot], mine);
    cell.read_pc = pc_;
  }

  bool known(const Epoch& e) const {
    const uint32_t local = e.agent - state_.first_agent;
    if (local < state_.warps.size()) return me_.known[local] >= e.clock;
    if (!state_.all->between_blocks) return true;
    return me_.foreign && (*me_.foreign)[state_.all->index_of(e.agent)] >= e.clock;
  }

  bool reads_done(const Epoch& e) const {
    const auto& done = state_.all->reads_done;
    return e.agent < done.size() && e.agent - state_.first_agent >= state_.warps.size() &&
           done[e.agent].load(std::memory_order_relaxed) >= e.clock;
  }

  void against(unsigned lane, uint64_t packed, uint32_t pc, bool other_writes) {
    const Epoch e = Epoch::unpack(packed);
    if (e.pending) return conflict(lane, e, pc, other_writes);
    if (e.strong && access_.strong) return;
    if (e.agent != agent_) {
      if (!other_writes && reads_done(e)) return;
      if (!known(e)) conflict(lane, e, pc, other_writes);
      return;
    }
    if (e.several ? me_.synced[lane] >= e.clock
                  : e.lane == lane || std::min(me_.synced[lane], me_.synced[e.lane]) >= e.clock) {
      return;
    }
    if (other_writes && access_.write && pc == pc_ && same_value(lane, e.lane)) return;
    conflict(lane, e, pc, other_writes);
  }

  // Lanes of one instruction that write one value to one place: whichever is last, the result is
  // the same.
  bool same_value(unsigned a, unsigned b) const {
    return values_ != nullptr && (access_.lanes >> b & 1) != 0 &&
           access_.address[a] == access_.address[b] &&
           std::memcmp(values_[a], values_[b], access_.bytes) == 0;
  }

  void conflict(unsigned lane, const Epoch& e, uint32_t pc, bool other_writes) {
    const Block& block = *w_.block;
    const Program& program = *block.grid->program;
    const uint32_t warps = state_.all->block_warps;
    const uint64_t other_block = e.agent / warps;
    const uint32_t* grid = block.grid->config.grid;
    const uint32_t* size = block.grid->config.block;
    const uint64_t thread = uint64_t{e.agent % warps} * kWarpLanes + e.lane;
    std::string who =
        "thread " + three(thread % size[0], thread / size[0] % size[1], thread / size[0] / size[1]);
    if (other_block != block.linear_index) {
      who += " of block " + three(other_block % grid[0], other_block / grid[0] % grid[1],
                                  other_block / grid[0] / grid[1]);
    }
    const std::string space(space_name(static_cast<uint8_t>(access_.space)));
    const std::string what =
        std::string(access_.write ? "write to " : "read of ") + space + " memory";
    if (e.pending) {
      report(w_, in_, lane, Fault::async_race, access_.address[lane],
             what + " that " + who + " copies asynchronously, at " + source_of(program, pc) +
                 ", and has not waited for");
      return;
    }
    report(w_, in_, lane, Fault::race, access_.address[lane],
           what + ", which " + who + (other_writes ? " wrote" : " read") + " at " +
               source_of(program, pc) +
               (other_block != block.linear_index ? ", and nothing orders the two blocks"
                : e.agent == agent_               ? " with no __syncwarp in between"
                                                  : " with no barrier in between"));
  }

  Warp& w_;
  const Instruction& in_;
  const Access& access_;
  const std::byte* const* values_;
  BlockRaces::State& state_;
  BlockRaces::State::WarpState& me_;
  const uint32_t agent_;
  const uint32_t launch_;
  const uint32_t pc_;
};

}  // namespace

void check_races(Warp& w, const Instruction& in, const Access& access, uint32_t lanes,
                 RaceCell* const cells[kWarpLanes], const std::byte* const* values) {
  Checker checker(w, in, access, values);
  for_lanes(lanes, [&](unsigned l) {
    checker.check(l, cells[l], static_cast<uint32_t>(access.address[l]));
  });
}

void mark_async_pending(Warp& w, RaceCell* cell, uint32_t bytes, uint32_t pc) {
  const BlockRaces::State& s = w.block->races->state();
  const Epoch e{
      s.first_agent + w.index, s.warps[w.index].clock, 0, 0xf, false, true, true, s.all->launch};
  for (uint32_t i = 0; i < bytes / 4; ++i) {
    store(cell[i].write, e.pack());
    cell[i].write_pc = pc;
  }
}

}  // namespace longclock::emulator
