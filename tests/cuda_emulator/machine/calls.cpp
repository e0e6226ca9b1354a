// SPDX-License-Identifier: Apache-2.0
#include "calls.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "../checks/report.h"
#include "block.h"
#include "lanes.h"
#include "scheduler.h"

namespace longclock::emulator {
namespace {

constexpr size_t kMaxDepth = 4096;

std::byte* local_of(Warp& w, unsigned lane) { return w.local + lane * w.local_stride; }

void copy_ranges(Warp& w, unsigned lane, const std::vector<Range>& from,
                 const std::vector<Range>& to) {
  for (size_t i = 0; i < std::min(from.size(), to.size()); ++i) {
    const uint64_t bytes = std::min(from[i].bytes, to[i].bytes);
    std::memmove(local_of(w, lane) + to[i].offset, local_of(w, lane) + from[i].offset, bytes);
    if (w.local_undefined == nullptr) continue;
    std::byte* undefined = w.local_undefined + lane * w.local_stride;
    std::memmove(undefined + to[i].offset, undefined + from[i].offset, bytes);
  }
}

// Copies a lane's registers of a function out (kSave) or back in: whatever its instructions write,
// as wide as they write it.
template <bool kSave>
void transfer(Warp& w, unsigned lane, const FunctionCode& function, std::vector<std::byte>& saved) {
  size_t at = 0;
  const auto move = [&](std::byte* memory, size_t bytes) {
    if constexpr (kSave) {
      saved.insert(saved.end(), memory, memory + bytes);
    } else {
      std::memcpy(memory, saved.data() + at, bytes);
      at += bytes;
    }
  };
  const Instruction* code = w.block->grid->program->code.data();
  const uint32_t end = static_cast<uint32_t>(w.block->grid->program->code.size());
  for (uint32_t pc = function.entry; pc < end; ++pc) {
    const Instruction& in = code[pc];
    for (unsigned i = 0; i < in.results; ++i) {
      const Operand& result = in.operands[i];
      if (result.kind == Operand::predicate) {
        if (result.offset < function.first_predicate ||
            result.offset >= function.first_predicate + function.predicates)
          return;
        std::byte bit{static_cast<uint8_t>(w.predicates[result.offset] >> lane & 1)};
        move(&bit, 1);
        if constexpr (!kSave)
          w.set_predicate(result, bit == std::byte{0} ? 0 : kAllLanes, 1u << lane);
        continue;
      }
      if (result.unit() < function.first_unit ||
          result.unit() >= function.first_unit + function.units)
        return;
      const size_t bytes = result.bits / 8;
      move(w.registers + result.offset + lane * bytes, bytes);
      if (w.undefined == nullptr) continue;
      std::byte bit{static_cast<uint8_t>(w.undefined[result.unit()] >> lane & 1)};
      move(&bit, 1);
      move(w.undefined_bits + result.offset + lane * bytes, bytes);
      if constexpr (!kSave) w.mark(result, bit == std::byte{0} ? 0 : kAllLanes, 1u << lane);
    }
  }
}

void transfer_frame(Warp& w, unsigned lane, const FunctionCode& function,
                    std::vector<std::byte>& saved, bool save) {
  std::byte* frame = local_of(w, lane) + function.frame;
  std::byte* undefined = w.local_undefined == nullptr
                             ? nullptr
                             : w.local_undefined + lane * w.local_stride + function.frame;
  if (save) {
    saved.assign(frame, frame + function.frame_bytes);
    if (undefined != nullptr)
      saved.insert(saved.end(), undefined, undefined + function.frame_bytes);
  } else {
    std::memcpy(frame, saved.data(), function.frame_bytes);
    if (undefined != nullptr)
      std::memcpy(undefined, saved.data() + function.frame_bytes, function.frame_bytes);
    saved.erase(saved.begin(),
                saved.begin() +
                    static_cast<ptrdiff_t>(function.frame_bytes * (undefined != nullptr ? 2 : 1)));
  }
}

void enter(Warp& w, const Instruction& in, uint32_t lanes, const CallSite& site, uint32_t callee) {
  const Program& program = *w.block->grid->program;
  const FunctionCode& function = program.functions[callee];
  uint32_t entering = lanes;
  for_lanes(lanes, [&](unsigned l) {
    std::vector<CallFrame>& stack = w.calls[l];
    if (stack.size() >= kMaxDepth) {
      report(w, in, l, Fault::trap, 0,
             "the call stack is deeper than " + std::to_string(kMaxDepth));
      w.block->grid->stop = true;
      entering &= ~(1u << l);
      return;
    }
    CallFrame frame{w.pc, callee, &site, {}};
    if (std::any_of(stack.begin(), stack.end(),
                    [&](const CallFrame& f) { return f.function == callee; })) {
      transfer_frame(w, l, function, frame.saved, true);
      transfer<true>(w, l, function, frame.saved);
    }
    copy_ranges(w, l, site.arguments, function.parameters);
    stack.push_back(std::move(frame));
  });
  if (entering == 0) return exit_lanes(w, lanes);
  if (entering != w.active) {
    w.waiting.push_back({w.active & ~entering, w.pc, w.depth, ThreadGroup::ready, 0, 0});
  }
  w.active = entering;
  w.pc = function.entry;
  ++w.depth;
  w.limit = w.waiting.empty() ? w.limit : 0;
}

}  // namespace

void call_function(Warp& w, const Instruction& in, uint32_t lanes) {
  const CallSite& site = *static_cast<const CallSite*>(in.extra);
  if (site.builtin != Builtin::none) return call_builtin(w, in, lanes, site);
  if (w.calls.empty()) w.calls.resize(kWarpLanes);
  if (site.function >= 0) return enter(w, in, lanes, site, static_cast<uint32_t>(site.function));

  report_undefined(w, in, in.operands[0], lanes, "the address of a function");
  const uint64_t* address = w.source<uint64_t>(in.operands[0]);
  const Program& program = *w.block->grid->program;
  const unsigned first = static_cast<unsigned>(std::countr_zero(lanes));
  uint32_t same = 0;
  for_lanes(lanes, [&](unsigned l) { same |= address[l] == address[first] ? 1u << l : 0; });
  if (const uint32_t others = w.active & ~same; others != 0) {
    // Those that call something else, or nothing: again from here, or from after it.
    const uint32_t again = lanes & ~same;
    if (again != 0) w.waiting.push_back({again, w.pc - 1, w.depth, ThreadGroup::ready, 0, 0});
    if (others & ~again)
      w.waiting.push_back({others & ~again, w.pc, w.depth, ThreadGroup::ready, 0, 0});
    w.active = same;
  }
  for (uint32_t f = 0; f < program.functions.size(); ++f) {
    const auto index =
        static_cast<uint64_t>(program.functions[f].ptx - program.module->functions.data());
    if (function_address(index) == address[first]) return enter(w, in, same, site, f);
  }
  report(w, in, first, Fault::out_of_bounds, address[first], "a call of what is not a function");
  w.block->grid->stop = true;
  exit_lanes(w, same);
}

void return_from_function(Warp& w, const Instruction&, uint32_t lanes) {
  if (w.depth == 0) return exit_lanes(w, lanes);
  const Program& program = *w.block->grid->program;
  const uint32_t stay = w.active & ~lanes;
  if (stay != 0) w.waiting.push_back({stay, w.pc, w.depth, ThreadGroup::ready, 0, 0});
  --w.depth;
  uint32_t pcs[kWarpLanes];
  for_lanes(lanes, [&](unsigned l) {
    CallFrame frame = std::move(w.calls[l].back());
    w.calls[l].pop_back();
    const FunctionCode& function = program.functions[frame.function];
    if (frame.saved.empty()) {
      copy_ranges(w, l, function.results, frame.site->results);
    } else {
      // The results go to the caller's frame, which may be what is put back.
      std::vector<std::byte> values, undefined;
      for (const Range& range : function.results) {
        const std::byte* from = local_of(w, l) + range.offset;
        values.insert(values.end(), from, from + range.bytes);
        if (w.local_undefined == nullptr) continue;
        from = w.local_undefined + l * w.local_stride + range.offset;
        undefined.insert(undefined.end(), from, from + range.bytes);
      }
      transfer_frame(w, l, function, frame.saved, false);
      transfer<false>(w, l, function, frame.saved);
      size_t at = 0;
      for (size_t i = 0; i < std::min(function.results.size(), frame.site->results.size()); ++i) {
        const Range& to = frame.site->results[i];
        const uint64_t bytes = std::min(to.bytes, function.results[i].bytes);
        std::memcpy(local_of(w, l) + to.offset, values.data() + at, bytes);
        if (w.local_undefined != nullptr) {
          std::memcpy(w.local_undefined + l * w.local_stride + to.offset, undefined.data() + at,
                      bytes);
        }
        at += function.results[i].bytes;
      }
    }
    pcs[l] = frame.return_pc;
  });
  w.active = lanes;
  w.pc = pcs[std::countr_zero(lanes)];
  uint32_t elsewhere = 0;
  for_lanes(lanes, [&](unsigned l) {
    if (pcs[l] == w.pc) return;
    elsewhere |= 1u << l;
    w.waiting.push_back({1u << l, pcs[l], w.depth, ThreadGroup::ready, 0, 0});
  });
  w.active &= ~elsewhere;
  w.limit = w.waiting.empty() ? w.limit : 0;
}

}  // namespace longclock::emulator
