// SPDX-License-Identifier: Apache-2.0
#include "scheduler.h"

#include <algorithm>

#include "../checks/report.h"
#include "../counters/counters.h"
#include "async_copies.h"
#include "lanes.h"

namespace longclock::emulator {
namespace {

constexpr int32_t kFuel = 2048;        // backward branches
constexpr uint32_t kStarvedTurns = 8;  // of kFuel each, before the groups behind a loop run
constexpr uint32_t kNoLimit = 0xffffffffu;

bool runs_before(const ThreadGroup& a, const ThreadGroup& b) {
  return a.depth != b.depth ? a.depth > b.depth : a.pc < b.pc;
}

// Groups at one place join. Those that wait for one another at a *.sync become ready together.
void join_groups(Warp& w) {
  std::vector<ThreadGroup>& groups = w.waiting;
  for (size_t i = 0; i < groups.size(); ++i) {
    for (size_t j = groups.size(); j-- > i + 1;) {
      if (groups[i].pc != groups[j].pc || groups[i].depth != groups[j].depth ||
          groups[i].state != groups[j].state || groups[i].state == ThreadGroup::at_barrier) {
        continue;
      }
      groups[i].lanes |= groups[j].lanes;
      groups[i].sync_mask |= groups[j].sync_mask;
      groups.erase(groups.begin() + static_cast<ptrdiff_t>(j));
    }
    ThreadGroup& group = groups[i];
    if (group.state == ThreadGroup::at_warp_sync &&
        (group.sync_mask & w.live() & ~group.lanes) == 0) {
      group.state = ThreadGroup::ready;
    }
  }
}

// No group is ready, some wait at a *.sync. __syncwarp may stand at several places; for all else
// lanes are missing that cannot come: the first group goes on without them, with a report.
void release_warp_sync(Warp& w) {
  const Program& program = *w.block->grid->program;
  uint32_t present = 0;
  bool all_plain = true;
  ThreadGroup* first = nullptr;
  for (ThreadGroup& group : w.waiting) {
    if (group.state != ThreadGroup::at_warp_sync) continue;
    present |= group.lanes;
    all_plain &= program.source(group.pc).opcode == "bar";
    if (first == nullptr || runs_before(group, *first)) first = &group;
  }
  const uint32_t missing = first->sync_mask & w.live() & ~present;
  first->state = ThreadGroup::ready;
  w.force_sync = true;
  if (missing == 0 && all_plain) return;
  const uint32_t absent = first->sync_mask & w.live() & ~first->lanes;
  if (!w.block->grid->checks(kCheckSync)) return;
  const unsigned lane = static_cast<unsigned>(std::countr_zero(first->lanes));
  report(w, program.code[first->pc], lane, Fault::missing_lanes, 0,
         "lanes that the member mask names do not come: " + std::to_string(std::popcount(absent)) +
             ", the first is lane " + std::to_string(std::countr_zero(absent)));
}

// Chooses what runs next; false: nothing can.
bool schedule(Warp& w) {
  if (w.waiting.empty()) {
    w.limit = kNoLimit;
    return w.active != 0;
  }
  if (w.active != 0) w.waiting.push_back({w.active, w.pc, w.depth, ThreadGroup::ready, 0, 0});
  const uint32_t looping = w.starved >= kStarvedTurns ? w.active : 0;
  w.active = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    join_groups(w);
    ThreadGroup* best = nullptr;
    for (ThreadGroup& group : w.waiting) {
      if (group.state != ThreadGroup::ready) continue;
      const bool aside = (group.lanes & looping) != 0;
      const bool best_aside = best != nullptr && (best->lanes & looping) != 0;
      if (best == nullptr || (best_aside && !aside) ||
          (best_aside == aside && runs_before(group, *best))) {
        best = &group;
      }
    }
    if (best != nullptr) {
      if (looping != 0) w.starved = 0;
      w.active = best->lanes;
      w.pc = best->pc;
      w.depth = best->depth;
      w.waiting.erase(w.waiting.begin() + (best - w.waiting.data()));
      w.limit = kNoLimit;
      for (const ThreadGroup& group : w.waiting) {
        if (group.state == ThreadGroup::ready && group.depth == w.depth && group.pc > w.pc) {
          w.limit = std::min(w.limit, group.pc);
        }
      }
      return true;
    }
    const bool syncing = std::any_of(w.waiting.begin(), w.waiting.end(), [](const ThreadGroup& g) {
      return g.state == ThreadGroup::at_warp_sync;
    });
    if (syncing) {
      release_warp_sync(w);
    } else {
      settle_divergent_barriers(w);  // may complete a barrier, and make groups ready
    }
  }
  return false;
}

// Whether every live lane that the member mask names is here. A group that is not complete waits.
bool members_are_here(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t* masks = w.source<uint32_t>(in.operands[in.member_mask]);
  uint32_t named = 0, unnamed = 0;
  for_lanes(lanes, [&](unsigned l) {
    named |= masks[l];
    unnamed |= ~masks[l] & (1u << l);
  });
  const bool check = w.block->grid->checks(kCheckSync);
  if (unnamed != 0 && check) {
    report(w, in, static_cast<unsigned>(std::countr_zero(unnamed)), Fault::missing_lanes, 0,
           "a lane executes this that its own member mask does not name");
  }
  if ((named & w.live() & ~lanes) == 0) return true;
  if (w.force_sync) {
    w.force_sync = false;
    return true;
  }
  const uint32_t others = w.active & ~lanes;
  const uint32_t pc = w.pc;
  wait_group(w, lanes, ThreadGroup::at_warp_sync, pc - 1, named);
  w.active = others;
  return false;
}

// Results are undefined where a source is, unless the instruction knows better.
void track_definedness(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t any = 0;
  for (unsigned i = in.results; i < in.count; ++i) any |= w.undefined_lanes(in.operands[i]);
  any &= lanes;
  if (any == 0) {
    for (unsigned i = 0; i < in.results; ++i) w.mark(in.operands[i], 0, lanes);
    return;
  }
  if (in.define != nullptr) {
    in.define(w, in, lanes);
    return;
  }
  for (unsigned i = 0; i < in.results; ++i) {
    const Operand& result = in.operands[i];
    w.mark(result, any, lanes);
    if (result.kind == Operand::predicate) continue;
    std::byte* bits = w.undefined_bits + result.offset;
    const size_t bytes = result.bits / 8;
    for_lanes(any, [&](unsigned l) { std::fill_n(bits + l * bytes, bytes, std::byte{0xff}); });
  }
}

void check_guard(Warp& w, const Instruction& in) {
  uint32_t& undefined = w.undefined_predicates[in.guard];
  const uint32_t used = undefined & w.active;
  if (used == 0) return;
  undefined &= ~used;  // one report is enough
  report(w, in, static_cast<unsigned>(std::countr_zero(used)), Fault::uninitialised, 0,
         "a condition depends on a value that was never written");
}

template <bool kChecked, bool kCounted>
WarpState run(Warp& w, Executions* executions, uint64_t* executed) {
  const Instruction* const code = w.block->grid->program->code.data();
  w.fuel = kFuel;
  w.limit = 0;
  for (;;) {
    if (w.live() == 0) return WarpState::done;
    if (w.block->grid->stop.load(std::memory_order_relaxed)) return WarpState::done;
    if (w.fuel <= 0) {
      const bool others = std::any_of(w.waiting.begin(), w.waiting.end(), [](const ThreadGroup& g) {
        return g.state == ThreadGroup::ready;
      });
      w.starved = others ? w.starved + 1 : 0;
      return WarpState::looping;
    }
    if (!schedule(w)) return w.live() == 0 ? WarpState::done : WarpState::blocked;
    while (w.pc < w.limit) {
      const Instruction& in = code[w.pc];
      uint32_t lanes = w.active;
      if (in.guard >= 0) {
        if constexpr (kChecked) check_guard(w, in);
        const uint32_t predicate = w.predicates[in.guard];
        lanes &= in.guard_negated ? ~predicate : predicate;
      }
      if constexpr (kCounted) {
        Executions& count = executions[w.pc];
        ++count.warps;
        *executed += in.unit != Unit::count_;
        count.lanes += static_cast<unsigned>(std::popcount(lanes));
      }
      ++w.pc;
      if (lanes == 0) continue;
      if (in.member_mask >= 0 && !members_are_here(w, in, lanes)) break;
      if constexpr (kChecked) {
        if (!in.own_definedness) track_definedness(w, in, lanes);
      }
      in.run(w, in, lanes);
    }
  }
}

}  // namespace

WarpState run_warp(Warp& w, Executions* executions, uint64_t* executed) {
  const bool checked = w.undefined != nullptr;
  if (executions != nullptr)
    return checked ? run<true, true>(w, executions, executed)
                   : run<false, true>(w, executions, executed);
  return checked ? run<true, false>(w, nullptr, nullptr) : run<false, false>(w, nullptr, nullptr);
}

void split(Warp& w, uint32_t lanes, uint32_t pc) {
  const bool backward = pc < w.pc;
  if (backward && --w.fuel <= 0) w.limit = 0;
  if (lanes == w.active) {
    w.pc = pc;
    // Forward over where another group waits: the scheduler joins them.
    return;
  }
  const uint32_t others = w.active & ~lanes;
  ThreadGroup parted{lanes, pc, w.depth, ThreadGroup::ready, 0, 0};
  if (backward) {
    parted.lanes = others;
    parted.pc = w.pc;
    w.active = lanes;
    w.pc = pc;
  } else {
    w.active = others;
  }
  w.waiting.push_back(parted);
  w.limit = std::min(w.limit, parted.pc);
  if (w.block->counters != nullptr) ++w.block->counters->divergent_branches;
}

void exit_lanes(Warp& w, uint32_t lanes) {
  w.exited |= lanes;
  w.active &= ~lanes;
  if (w.block->async) w.block->async->finish(w, lanes);
  if (w.active == 0) w.limit = 0;
  recheck_barriers(*w.block);
}

void wait_group(Warp& w, uint32_t lanes, ThreadGroup::State state, uint32_t pc, uint32_t detail) {
  ThreadGroup group{lanes, pc, w.depth, state, 0, 0};
  (state == ThreadGroup::at_warp_sync ? group.sync_mask : group.barrier) = detail;
  w.waiting.push_back(group);
  w.active &= ~lanes;
  w.limit = 0;
}

bool report_undefined(Warp& w, const Instruction& in, const Operand& operand, uint32_t lanes,
                      const char* use) {
  if (w.undefined == nullptr) return false;
  const uint32_t used = w.undefined_lanes(operand) & lanes;
  if (used == 0) return false;
  report(w, in, static_cast<unsigned>(std::countr_zero(used)), Fault::uninitialised, 0,
         std::string(use) + " depends on a value that was never written");
  return true;
}

void jump(Warp& w, const Instruction& in, uint32_t lanes) { split(w, lanes, in.target); }

void unknown_instruction(Warp& w, const Instruction& in, uint32_t lanes) {
  const auto& source = *static_cast<const ptx::Instruction*>(in.source);
  report(w, in, static_cast<unsigned>(std::countr_zero(lanes)), Fault::unknown_instruction, 0,
         "the emulator does not know this instruction: " + std::string(source.text));
  w.block->grid->stop = true;
}

}  // namespace longclock::emulator
