// SPDX-License-Identifier: Apache-2.0
#include "register_allocation.h"

#include <algorithm>
#include <bit>
#include <map>

namespace longclock::emulator {
namespace {

class BitSet {
 public:
  explicit BitSet(size_t size) : words_((size + 63) / 64, 0) {}
  bool test(size_t i) const { return (words_[i / 64] >> (i % 64)) & 1; }
  void set(size_t i) { words_[i / 64] |= uint64_t{1} << (i % 64); }
  void unite(const BitSet& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }
  // this |= from - without; whether that changed it.
  bool unite_difference(const BitSet& from, const BitSet& without) {
    uint64_t changed = 0;
    for (size_t i = 0; i < words_.size(); ++i) {
      const uint64_t before = words_[i];
      words_[i] |= from.words_[i] & ~without.words_[i];
      changed |= before ^ words_[i];
    }
    return changed != 0;
  }
  template <class F>
  void for_each(F f) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      for (uint64_t word = words_[i]; word != 0; word &= word - 1) {
        f(i * 64 + static_cast<size_t>(std::countr_zero(word)));
      }
    }
  }

 private:
  std::vector<uint64_t> words_;
};

// Calls read(register) for sources and guard, then write(register, whole) for results; a guarded
// write keeps the old value in some lanes.
template <class Read, class Write>
void visit_registers(const Instruction& in, Read read, Write write) {
  for (unsigned i = in.results; i < in.count; ++i) {
    if (in.operands[i].kind != Operand::constant) read(in.operands[i].offset);
  }
  if (in.guard >= 0) read(static_cast<uint32_t>(in.guard));
  for (unsigned i = 0; i < in.results; ++i) write(in.operands[i].offset, in.guard < 0);
}

// Twice the pc, plus 1 for what an instruction writes: a result may take the row of a source.
struct Interval {
  uint32_t begin = 0xffffffffu, end = 0;
  void cover(uint32_t at) {
    begin = std::min(begin, at);
    end = std::max(end, at);
  }
};

std::vector<Interval> live_intervals(std::span<const Instruction> code,
                                     std::span<const CodeBlock> blocks, size_t registers) {
  std::vector<BitSet> live_in(blocks.size(), BitSet(registers));
  std::vector<BitSet> live_out(blocks.size(), BitSet(registers));
  std::vector<BitSet> killed(blocks.size(), BitSet(registers));
  std::vector<Interval> intervals(registers);
  for (size_t b = 0; b < blocks.size(); ++b) {
    for (uint32_t pc = blocks[b].begin; pc < blocks[b].end; ++pc) {
      // Handlers read every source before they write where there is one result; with more, rows
      // of sources are not reused at once.
      const uint32_t after = code[pc].results > 1 ? 1 : 0;
      visit_registers(
          code[pc],
          [&](uint32_t r) {
            intervals[r].cover(2 * pc + after);
            if (!killed[b].test(r)) live_in[b].set(r);
          },
          [&](uint32_t r, bool whole) {
            intervals[r].cover(2 * pc + 1);
            if (whole) {
              killed[b].set(r);
            } else if (!killed[b].test(r)) {
              live_in[b].set(r);
            }
          });
    }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t b = blocks.size(); b-- > 0;) {
      for (uint32_t s : blocks[b].successors) live_out[b].unite(live_in[s]);
      changed |= live_in[b].unite_difference(live_out[b], killed[b]);
    }
  }
  for (size_t b = 0; b < blocks.size(); ++b) {
    live_in[b].for_each([&](size_t r) { intervals[r].cover(2 * blocks[b].begin); });
    live_out[b].for_each([&](size_t r) { intervals[r].cover(2 * blocks[b].end); });
  }
  return intervals;
}

// Rows in use; the lowest free run first.
class Rows {
 public:
  uint32_t take(uint32_t units) {
    for (uint32_t at = 0;; ++at) {
      if (at + units > used_.size()) used_.resize(at + units, false);
      if (std::none_of(used_.begin() + at, used_.begin() + at + units, [](bool u) { return u; })) {
        set(at, units, true);
        return at;
      }
    }
  }
  void give_back(uint32_t at, uint32_t units) { set(at, units, false); }
  uint32_t size() const { return static_cast<uint32_t>(used_.size()); }

 private:
  void set(uint32_t at, uint32_t units, bool value) {
    std::fill(used_.begin() + at, used_.begin() + at + units, value);
  }
  std::vector<bool> used_;
};

}  // namespace

std::pair<uint32_t, uint32_t> allocate_registers(std::span<Instruction> code,
                                                 std::span<const CodeBlock> blocks,
                                                 std::span<const uint8_t> bits, uint32_t first_unit,
                                                 uint32_t first_predicate) {
  const std::vector<Interval> intervals = live_intervals(code, blocks, bits.size());
  std::vector<uint32_t> by_begin, place(bits.size(), 0);
  for (uint32_t r = 0; r < bits.size(); ++r) {
    if (intervals[r].begin <= intervals[r].end) by_begin.push_back(r);
  }
  std::sort(by_begin.begin(), by_begin.end(),
            [&](uint32_t a, uint32_t b) { return intervals[a].begin < intervals[b].begin; });
  const auto units_of = [&](uint32_t r) { return bits[r] <= 32 ? 1u : bits[r] / 32u; };

  // Registers of different widths never share a row: lanes that wait would find in a narrow one
  // what other lanes of the warp, which lie elsewhere in a wide one, wrote meanwhile.
  std::map<uint8_t, Rows> rows;  // by width; of predicates too
  std::vector<uint32_t> alive;   // a heap by end
  const auto later_end = [&](uint32_t a, uint32_t b) {
    return intervals[a].end > intervals[b].end;
  };
  for (uint32_t r : by_begin) {
    while (!alive.empty() && intervals[alive.front()].end < intervals[r].begin) {
      std::pop_heap(alive.begin(), alive.end(), later_end);
      const uint32_t done = alive.back();
      alive.pop_back();
      rows[bits[done]].give_back(place[done], units_of(done));
    }
    place[r] = rows[bits[r]].take(units_of(r));
    alive.push_back(r);
    std::push_heap(alive.begin(), alive.end(), later_end);
  }

  const uint32_t predicates = rows[1].size();
  std::map<uint8_t, uint32_t> first_of;
  uint32_t units = 0;
  for (const auto& [width, of_width] : rows) {
    first_of[width] = units;
    if (width != 1) units += of_width.size();
  }
  for (uint32_t r = 0; r < bits.size(); ++r) {
    if (bits[r] != 1) place[r] += first_of[bits[r]];
  }

  for (Instruction& in : code) {
    Operand* own = const_cast<Operand*>(in.operands);
    for (unsigned i = 0; i < in.count; ++i) {
      if (own[i].kind == Operand::predicate) {
        own[i].offset = first_predicate + place[own[i].offset];
      } else if (own[i].kind == Operand::reg) {
        own[i].offset = (first_unit + place[own[i].offset]) * 128;
      }
    }
    if (in.guard >= 0) {
      in.guard = static_cast<int32_t>(first_predicate + place[static_cast<uint32_t>(in.guard)]);
    }
  }
  return {units, predicates};
}

}  // namespace longclock::emulator
