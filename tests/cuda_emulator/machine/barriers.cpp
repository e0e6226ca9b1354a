// SPDX-License-Identifier: Apache-2.0
// Barriers of a block. The rule is CUDA's: every thread of the block comes to the same barrier,
// or, with a count, that many threads do. Hardware is more forgiving, to programs that are wrong.
#include <algorithm>
#include <bit>

#include "../checks/races.h"
#include "../checks/report.h"
#include "../counters/counters.h"
#include "lanes.h"
#include "scheduler.h"

namespace longclock::emulator {
namespace {

uint32_t lanes_at(const Warp& w, uint32_t id) {
  uint32_t lanes = 0;
  for (const ThreadGroup& group : w.waiting) {
    if (group.state == ThreadGroup::at_barrier && group.barrier == id) lanes |= group.lanes;
  }
  return lanes;
}

std::string thread_text(const Block& block, const Warp& w, unsigned lane) {
  uint32_t t[3];
  block.thread_of(w, lane, t);
  return "(" + std::to_string(t[0]) + ", " + std::to_string(t[1]) + ", " + std::to_string(t[2]) +
         ")";
}

// bar.red: the vote of all, to every lane that waited.
void write_vote(Warp& w, const Instruction& in, uint32_t lanes, const Barrier& barrier) {
  if (in.results == 0) return;
  const Operand& result = in.operands[0];
  if (result.kind == Operand::predicate) {
    const auto& source = *static_cast<const ptx::Instruction*>(in.source);
    const bool all = std::find(source.modifiers.begin(), source.modifiers.end(), "and") !=
                     source.modifiers.end();
    const bool value = all ? barrier.true_votes == barrier.votes : barrier.true_votes != 0;
    w.set_predicate(result, value ? kAllLanes : 0, lanes);
  } else {
    uint32_t* row = w.result<uint32_t>(result);
    for_lanes(lanes, [&](unsigned l) { row[l] = barrier.true_votes; });
  }
  if (w.undefined != nullptr) w.mark(result, 0, lanes);
}

void complete(Block& block, uint32_t id) {
  Barrier& barrier = block.barriers[id];
  const Instruction* code = block.grid->program->code.data();
  for (Warp& w : block.warps) {
    for (ThreadGroup& group : w.waiting) {
      if (group.state != ThreadGroup::at_barrier || group.barrier != id) continue;
      group.state = ThreadGroup::ready;
      write_vote(w, code[group.pc - 1], group.lanes, barrier);
    }
  }
  if (block.races) block.races->barrier(barrier.warps);
  ++block.progress;
  const uint32_t generation = barrier.generation + 1;
  barrier = Barrier{};
  barrier.generation = generation;
}

void report_absent(Block& block, uint32_t id) {
  const Barrier& barrier = block.barriers[id];
  const Instruction& in = block.grid->program->code[barrier.pc];
  Warp* here = nullptr;
  for (Warp& w : block.warps) {
    if (here == nullptr && lanes_at(w, id) != 0) here = &w;
  }
  for (Warp& w : block.warps) {
    if (w.exited == 0 || here == nullptr) continue;
    const unsigned lane = static_cast<unsigned>(std::countr_zero(w.exited));
    report(*here, in, static_cast<unsigned>(std::countr_zero(lanes_at(*here, id))),
           Fault::divergent_barrier, 0,
           "not every thread of the block comes to this barrier: thread " +
               thread_text(block, w, lane) + " has exited");
    return;
  }
}

bool try_complete(Block& block, uint32_t id) {
  Barrier& barrier = block.barriers[id];
  if (barrier.warps == 0) return false;
  if (barrier.expected != 0) {
    if (barrier.arrived < barrier.expected) return false;
    complete(block, id);
    return true;
  }
  bool exited = false;
  for (const Warp& w : block.warps) {
    if (w.live() != 0 && (lanes_at(w, id) != w.live() || (barrier.warps >> w.index & 1) == 0))
      return false;
    exited |= w.exited != 0;
  }
  if (exited && block.grid->checks(kCheckSync)) report_absent(block, id);
  complete(block, id);
  return true;
}

void arrive(Warp& w, const Instruction& in, uint32_t lanes, uint32_t id, uint32_t count,
            bool aligned, uint32_t pc) {
  Block& block = *w.block;
  Barrier& barrier = block.barriers[id];
  const unsigned lane = static_cast<unsigned>(std::countr_zero(lanes));
  if (barrier.warps == 0) {
    barrier.pc = pc;
    barrier.expected = count;
  } else if (block.grid->checks(kCheckSync)) {
    if (barrier.expected != count) {
      report(w, in, lane, Fault::mismatched_barrier, 0,
             "barrier " + std::to_string(id) + " is for " + std::to_string(count) +
                 " threads here and for " + std::to_string(barrier.expected) + " at " +
                 source_of(*block.grid->program, barrier.pc) + " (0: all)");
    } else if (count == 0 && barrier.pc != pc) {
      report(w, in, lane, Fault::mismatched_barrier, 0,
             "threads of the block wait at another barrier, at " +
                 source_of(*block.grid->program, barrier.pc));
    }
  }
  barrier.warps |= 1u << w.index;
  barrier.arrived += aligned ? kWarpLanes : static_cast<uint32_t>(std::popcount(lanes));
  if (in.results != 0) {  // bar.red: the last source is the vote
    const uint32_t votes = w.predicate(in.operands[in.count - 1]) & lanes;
    barrier.true_votes += static_cast<uint32_t>(std::popcount(votes));
    barrier.votes += static_cast<uint32_t>(std::popcount(lanes));
  }
  if (block.counters != nullptr) ++block.counters->barriers;
  try_complete(block, id);
}

}  // namespace

void arrive_at_barrier(Warp& w, const Instruction& in, uint32_t lanes, uint32_t id, uint32_t count,
                       bool aligned, bool wait) {
  const uint32_t pc = w.pc;  // of the next instruction
  if (!wait) {               // bar.arrive: goes on at once
    arrive(w, in, lanes, id, count, aligned, pc - 1);
    return;
  }
  wait_group(w, lanes, ThreadGroup::at_barrier, pc, id);
  if (!aligned) {
    arrive(w, in, lanes, id, count, false, pc - 1);
    return;
  }
  uint32_t here = 0;
  for (const ThreadGroup& group : w.waiting) {
    if (group.state == ThreadGroup::at_barrier && group.pc == pc && group.barrier == id)
      here |= group.lanes;
  }
  if (here == w.live()) arrive(w, in, here, id, count, true, pc - 1);
}

// Called where no group of the warp can run: some lanes wait at one aligned barrier, others at
// another.
void settle_divergent_barriers(Warp& w) {
  Block& block = *w.block;
  const Instruction* code = block.grid->program->code.data();
  for (uint32_t id = 0; id < std::size(block.barriers); ++id) {
    const uint32_t lanes = lanes_at(w, id);
    if (lanes == 0 || (block.barriers[id].warps >> w.index & 1) != 0) continue;
    const auto group = std::find_if(w.waiting.begin(), w.waiting.end(), [&](const ThreadGroup& g) {
      return g.state == ThreadGroup::at_barrier && g.barrier == id;
    });
    const uint32_t pc = group->pc - 1;
    if (block.grid->checks(kCheckSync) && !block.grid->stop) {
      const uint32_t absent = w.exists & ~group->lanes;
      report(w, code[pc], static_cast<unsigned>(std::countr_zero(group->lanes)),
             Fault::divergent_barrier, 0,
             "only some lanes of the warp come to this barrier: thread " +
                 thread_text(block, w, static_cast<unsigned>(std::countr_zero(absent))) +
                 ((w.exited & absent) != 0 ? " has exited" : " waits elsewhere"));
    }
    arrive(w, code[pc], lanes, id, barrier_count(w, code[pc]), true, pc);
    return;
  }
}

void recheck_barriers(Block& block) {
  for (uint32_t id = 0; id < std::size(block.barriers); ++id) try_complete(block, id);
}

void report_deadlock(Block& block) {
  if (!block.grid->stop) {
    for (uint32_t id = 0; id < std::size(block.barriers); ++id) {
      const Barrier& barrier = block.barriers[id];
      for (Warp& w : block.warps) {
        const uint32_t lanes = lanes_at(w, id);
        if (lanes == 0) continue;
        report(w, block.grid->program->code[barrier.pc],
               static_cast<unsigned>(std::countr_zero(lanes)), Fault::deadlock, 0,
               "every thread that is left waits; barrier " + std::to_string(id) + " has " +
                   std::to_string(barrier.arrived) + " of " + std::to_string(barrier.expected) +
                   " threads (0: all)");
        block.grid->stop = true;
        return;
      }
    }
  }
  block.grid->stop = true;
}

}  // namespace longclock::emulator
