// SPDX-License-Identifier: Apache-2.0
// Branches, calls, barriers, the end of threads.
#include <bit>
#include <string>

#include "../checks/races.h"
#include "../checks/report.h"
#include "block.h"
#include "calls.h"
#include "decode.h"
#include "lanes.h"
#include "scheduler.h"

namespace longclock::emulator {
namespace {

void branch(Warp& w, const Instruction& in, uint32_t lanes) { split(w, lanes, in.target); }

// brx.idx: each lane its own entry; outside the table the PTX ISA leaves it undefined.
void branch_indexed(Warp& w, const Instruction& in, uint32_t lanes) {
  report_undefined(w, in, in.operands[0], lanes, "a branch");
  const auto& table = *static_cast<const std::vector<uint32_t>*>(in.extra);
  const uint32_t* index = w.source<uint32_t>(in.operands[0]);
  uint32_t rest = lanes;
  while (rest != 0) {
    const unsigned first = static_cast<unsigned>(std::countr_zero(rest));
    uint32_t same = 0;
    for_lanes(rest, [&](unsigned l) { same |= index[l] == index[first] ? 1u << l : 0; });
    rest &= ~same;
    if (index[first] >= table.size()) {
      report(w, in, first, Fault::trap, 0,
             "entry " + std::to_string(index[first]) + " of a branch table of " +
                 std::to_string(table.size()));
      exit_lanes(w, same);
      continue;
    }
    if ((same & w.active) == w.active) {
      split(w, same, table[index[first]]);
    } else {
      w.waiting.push_back({same, table[index[first]], w.depth, ThreadGroup::ready, 0, 0});
      w.active &= ~same;
      w.limit = 0;
    }
  }
}

void exit_threads(Warp& w, const Instruction&, uint32_t lanes) { exit_lanes(w, lanes); }

void trap(Warp& w, const Instruction& in, uint32_t lanes) {
  report(w, in, static_cast<unsigned>(std::countr_zero(lanes)), Fault::trap, 0, "trap");
  w.block->grid->stop = true;
  exit_lanes(w, lanes);
}

void nothing(Warp&, const Instruction&, uint32_t) {}

// Who sleeps or spins lets others run.
void sleep(Warp& w, const Instruction&, uint32_t) {
  w.fuel = 0;
  w.limit = 0;
}

template <bool kAligned, bool kWait>
void barrier(Warp& w, const Instruction& in, uint32_t lanes) {
  const unsigned first = static_cast<unsigned>(std::countr_zero(lanes));
  const Operand& which = in.operands[in.results];
  report_undefined(w, in, which, lanes, "the number of a barrier");
  const uint32_t id = w.source<uint32_t>(which)[first];
  if (id >= std::size(w.block->barriers)) {
    report(w, in, first, Fault::mismatched_barrier, 0,
           "there are 16 barriers, this is number " + std::to_string(id));
    return;
  }
  const uint32_t count = barrier_count(w, in);
  if (count % kWarpLanes != 0) {
    report(w, in, first, Fault::mismatched_barrier, 0,
           "the count of a barrier must be a multiple of 32, is " + std::to_string(count));
    return;
  }
  arrive_at_barrier(w, in, lanes, id, count, kAligned, kWait);
}

void barrier_warp(Warp& w, const Instruction&, uint32_t lanes) {
  if (w.block->races) w.block->races->sync_warp(w, lanes);
}

Handler select_branch(Decode& d) {
  d.out.unit = Unit::control;
  d.out.own_definedness = true;
  d.branch_to(0);
  return branch;
}

Handler select_branch_indexed(Decode& d) {
  d.out.unit = Unit::control;
  d.out.own_definedness = true;
  d.source(0, 32);
  d.branch_table(1);
  return branch_indexed;
}

Handler select_call(Decode& d) {
  d.out.unit = Unit::control;
  d.out.own_definedness = true;
  d.call();
  return call_function;
}

template <Handler kHandler>
Handler select_plain(Decode& d) {
  d.out.unit = Unit::control;
  d.out.own_definedness = true;
  return kHandler;
}

// bar{.warp}.sync, bar.arrive, bar.red; barrier{.cta} is the same and aligned only where it says
// so.
Handler select_barrier(Decode& d) {
  d.out.unit = Unit::sync;
  d.out.own_definedness = true;
  if (d.has("warp")) {
    d.source(0, 32);
    d.out.member_mask = 0;
    return barrier_warp;
  }
  if (d.has("cluster")) {  // a cluster is one block: its barrier is barrier 15 of the block
    if (d.has("arrive")) return nothing;
    d.source_constant(15, 32);
    d.out.immediate = 1;
    return d.has("aligned") ? barrier<true, true> : barrier<false, true>;
  }
  const bool aligned = d.ptx.opcode == "bar" || d.has("aligned");
  const bool red = d.has("red");
  if (red) {
    d.out.immediate = d.operands() == 4 ? 2 : 1;
    d.result(0, 32);
    for (size_t i = 1; i < d.operands(); ++i) d.source(i, i + 1 == d.operands() ? 1 : 32);
    return aligned ? barrier<true, true> : barrier<false, true>;
  }
  d.out.immediate = static_cast<int64_t>(d.operands());
  for (size_t i = 0; i < d.operands(); ++i) d.source(i, 32);
  if (d.has("arrive")) return aligned ? barrier<true, false> : barrier<false, false>;
  if (!d.has("sync")) return nullptr;
  return aligned ? barrier<true, true> : barrier<false, true>;
}

}  // namespace

// Operands after the result: the barrier, then, where there are two, its count.
uint32_t barrier_count(const Warp& w, const Instruction& in) {
  if (in.immediate < 2) return 0;
  const uint32_t* row = w.source<uint32_t>(in.operands[in.results + 1]);
  return row[std::countr_zero(w.live())];
}

std::span<const Opcode> control_opcodes() {
  static constexpr Opcode kOpcodes[] = {
      {"bra", select_branch},
      {"brx", select_branch_indexed},
      {"call", select_call},
      {"ret", select_plain<return_from_function>},
      {"exit", select_plain<exit_threads>},
      {"trap", select_plain<trap>},
      {"brkpt", select_plain<nothing>},
      {"nanosleep", select_plain<sleep>},
      {"pmevent", select_plain<nothing>},
      {"setmaxnreg", select_plain<nothing>},
      {"griddepcontrol", select_plain<nothing>},
      {"bar", select_barrier},
      {"barrier", select_barrier},
  };
  return kOpcodes;
}

}  // namespace longclock::emulator
