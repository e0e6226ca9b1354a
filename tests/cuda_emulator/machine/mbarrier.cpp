// SPDX-License-Identifier: Apache-2.0
#include "mbarrier.h"

#include <cstring>
#include <string>

#include "../checks/report.h"
#include "memory_form.h"

namespace longclock::emulator {
namespace {

// Bits: 0 pending arrivals, 20 arrivals of a phase, 40 bytes still to come (signed), 62 phase,
// 63 set by init.
struct Word {
  uint64_t bits = 0;

  static constexpr uint64_t kCount = 0xfffff, kBytes = 0x3fffff;
  static constexpr uint64_t kPhase = uint64_t{1} << 62, kValid = uint64_t{1} << 63;

  uint64_t pending() const { return bits & kCount; }
  uint64_t expected() const { return bits >> 20 & kCount; }
  bool valid() const { return (bits & kValid) != 0; }
  uint64_t phase() const { return bits >> 62 & 1; }

  void set_pending(uint64_t n) { bits = (bits & ~kCount) | (n & kCount); }
  void set_expected(uint64_t n) { bits = (bits & ~(kCount << 20)) | (n & kCount) << 20; }
  void add_bytes(uint64_t n) {
    const uint64_t sum = ((bits >> 40) + n) & kBytes;
    bits = (bits & ~(kBytes << 40)) | sum << 40;
  }
  // Whether a phase ended: nothing is pending and no bytes are to come.
  bool turn() {
    if (pending() != 0 || (bits >> 40 & kBytes) != 0) return false;
    bits ^= kPhase;
    set_pending(expected());
    return true;
  }
};

Word read_word(const Access& a, unsigned l) {
  Word word;
  std::memcpy(&word.bits, a.data[l], 8);
  return word;
}

void write_word(Warp& w, const Access& a, unsigned l, Word word) {
  if (word.turn()) ++w.block->progress;
  std::memcpy(a.data[l], &word.bits, 8);
}

Access access_of(Warp& w, const Instruction& in, uint32_t lanes) {
  Access a;
  a.space = static_cast<const MemoryForm*>(in.extra)->space;
  a.lanes = lanes;
  gather_addresses(w, in, in.results, a);
  return a;
}

const MemoryForm& form_of(const Instruction& in) {
  return *static_cast<const MemoryForm*>(in.extra);
}

// Sources after the address; an undefined one is reported where it is used.
const Operand& operand_after(const Instruction& in, unsigned k) {
  return in.operands[in.results + 1 + k];
}
void check_operands(Warp& w, const Instruction& in, uint32_t lanes) {
  if (w.undefined == nullptr) return;
  uint32_t any = 0;
  for (unsigned k = in.results + 1u; k < in.count; ++k) any |= w.undefined_lanes(in.operands[k]);
  for_lanes(any & lanes, [&](unsigned l) {
    report(w, in, l, Fault::uninitialised, 0,
           "an operand of an mbarrier operation was never written");
  });
  for (unsigned r = 0; r < in.results; ++r) w.mark(in.operands[r], 0, lanes);
}

void initialise(Warp& w, const Instruction& in, uint32_t lanes) {
  check_operands(w, in, lanes);
  Access a = access_of(w, in, lanes);
  a.bytes = 8;
  a.write = a.strong = a.silent = a.exempt = true;
  const uint32_t* counts = w.source<uint32_t>(operand_after(in, 0));
  for_lanes(check_access(w, in, a), [&](unsigned l) {
    if (counts[l] == 0 || counts[l] > Word::kCount) {
      report(w, in, l, Fault::mismatched_barrier, a.address[l],
             "mbarrier.init with a count of " + std::to_string(counts[l]) +
                 "; 1 to 1048575 are possible");
    }
    Word word{Word::kValid};
    word.set_expected(counts[l]);
    word.set_pending(counts[l]);
    std::memcpy(a.data[l], &word.bits, 8);
    if (a.undefined[l] != nullptr) std::memset(a.undefined[l], 0, 8);
  });
}

void invalidate(Warp& w, const Instruction& in, uint32_t lanes) {
  Access a = access_of(w, in, lanes);
  for_lanes(check_mbarrier(w, in, a), [&](unsigned l) {
    std::memset(a.data[l], 0, 8);
    if (a.undefined[l] != nullptr) std::memset(a.undefined[l], 0xff, 8);
  });
}

enum class Arrive { plain, expecting, dropping, dropping_expecting };

template <Arrive kWhat>
void arrive(Warp& w, const Instruction& in, uint32_t lanes) {
  constexpr bool kExpects = kWhat == Arrive::expecting || kWhat == Arrive::dropping_expecting;
  constexpr bool kDrops = kWhat == Arrive::dropping || kWhat == Arrive::dropping_expecting;
  check_operands(w, in, lanes);
  Access a = access_of(w, in, lanes);
  const uint32_t good = check_mbarrier(w, in, a);
  before_write(w, form_of(in), a, good);
  const bool has_operand = in.count > in.results + 1u;
  const uint32_t* operand = has_operand ? w.source<uint32_t>(operand_after(in, 0)) : nullptr;
  uint32_t operands[kWarpLanes] = {};
  if (has_operand) std::memcpy(operands, operand, sizeof operands);
  alignas(64) uint64_t states[kWarpLanes] = {};
  for_lanes(good, [&](unsigned l) {
    Word word = read_word(a, l);
    states[l] = word.bits;
    if (kExpects) word.add_bytes(operands[l]);
    if (kDrops) {
      const uint64_t count = kExpects || !has_operand ? 1 : operands[l];
      word.set_expected(word.expected() < count ? 0 : word.expected() - count);
    }
    std::memcpy(a.data[l], &word.bits, 8);
    arrive_at(w, in, a, l, kExpects || !has_operand ? 1 : operands[l]);
  });
  if (in.results != 0) store_lanes(w.result<uint64_t>(in.operands[0]), states, lanes);
}

template <bool kExpect>
void change_bytes(Warp& w, const Instruction& in, uint32_t lanes) {
  check_operands(w, in, lanes);
  Access a = access_of(w, in, lanes);
  const uint32_t good = check_mbarrier(w, in, a);
  const uint32_t* bytes = w.source<uint32_t>(operand_after(in, 0));
  before_write(w, form_of(in), a, good);
  for_lanes(good, [&](unsigned l) {
    if (!kExpect) return complete_bytes(w, a, l, bytes[l]);
    Word word = read_word(a, l);
    word.add_bytes(bytes[l]);
    std::memcpy(a.data[l], &word.bits, 8);
  });
}

// A lane that has to wait gives way to the other groups of its warp and to the other warps.
template <bool kParity>
void wait(Warp& w, const Instruction& in, uint32_t lanes) {
  check_operands(w, in, lanes);
  Access a = access_of(w, in, lanes);
  const uint32_t good = check_mbarrier(w, in, a);
  const Operand& waits_for = operand_after(in, 0);
  uint32_t done = lanes & ~good;  // nobody is to wait for ever after a fault
  for_lanes(good, [&](unsigned l) {
    uint64_t phase = 0;
    if constexpr (kParity) {
      phase = w.source<uint32_t>(waits_for)[l] & 1;
    } else {
      phase = Word{w.source<uint64_t>(waits_for)[l]}.phase();
    }
    done |= static_cast<uint32_t>(read_word(a, l).phase() != phase) << l;
  });
  after_read(w, form_of(in), a, done & good);
  w.set_predicate(in.operands[0], done, lanes);
  if (done != lanes) {
    w.limit = 0;
    w.fuel = 0;
  }
}

void pending_count(Warp& w, const Instruction& in, uint32_t lanes) {
  map_lanes<uint32_t, uint64_t>(
      w, in, lanes, [](uint64_t state) { return static_cast<uint32_t>(Word{state}.pending()); });
}

}  // namespace

uint32_t check_mbarrier(Warp& w, const Instruction& in, Access& a) {
  a.bytes = 8;
  a.align = 8;
  a.read = a.write = a.strong = a.silent = a.exempt = true;
  uint32_t good = check_access(w, in, a);
  for_lanes(good, [&](unsigned l) {
    if (read_word(a, l).valid()) return;
    good &= ~(1u << l);
    report(w, in, l, Fault::mismatched_barrier, a.address[l],
           "the mbarrier was not initialised, or is no longer");
  });
  return good;
}

void arrive_at(Warp& w, const Instruction& in, const Access& a, unsigned l, uint32_t count) {
  Word word = read_word(a, l);
  if (count > word.pending()) {
    report(w, in, l, Fault::mismatched_barrier, a.address[l],
           std::to_string(count) + " arrivals at an mbarrier that waits for " +
               std::to_string(word.pending()) + " in this phase");
    count = static_cast<uint32_t>(word.pending());
  }
  word.set_pending(word.pending() - count);
  write_word(w, a, l, word);
}

void complete_bytes(Warp& w, const Access& a, unsigned l, uint64_t bytes) {
  Word word = read_word(a, l);
  word.add_bytes(-bytes);
  write_word(w, a, l, word);
}

Handler select_mbarrier(Decode& d) {
  const std::string_view what = d.modifier(0);
  using Kind = ptx::Operand::Kind;
  d.out.unit = Unit::sync;
  if (what == "pending_count") {
    if (d.operands() != 2) return nullptr;
    d.result(0, 32);
    d.source(1, 64);
    return pending_count;
  }
  if (d.operands() == 0) return nullptr;
  const bool waits = what == "test_wait" || what == "try_wait";
  const bool has_result = d.operand(0).kind != Kind::address;
  const size_t address = has_result ? 1 : 0, after = address + 1;
  if (d.operands() <= address) return nullptr;
  MemoryForm form = memory_form(d, address);
  // The default orders: arrivals release, waits acquire.
  if (!d.has("relaxed")) (waits ? form.acquire : form.release) = true;
  form.strong = true;
  *d.make_extra<MemoryForm>() = form;
  d.out.own_definedness = true;
  if (has_result && d.operand(0).kind != Kind::sink) d.result(0, waits ? 1 : 64);
  d.address(address);
  const bool has_operand = d.operands() > after;
  if (waits) {
    const bool parity = d.has("parity");
    if (!has_operand || d.out.results != 1) return nullptr;
    d.source(after, parity ? 32 : 64);  // the hint of how long to sleep means nothing here
    return parity ? wait<true> : wait<false>;
  }
  if (has_operand) d.source(after, 32);
  if (what == "init") return has_operand ? initialise : nullptr;
  if (what == "inval") return invalidate;
  if (what == "expect_tx" || what == "complete_tx") {
    if (!has_operand) return nullptr;
    return what == "expect_tx" ? change_bytes<true> : change_bytes<false>;
  }
  const bool expects = d.has("expect_tx");
  if (expects && !has_operand) return nullptr;
  if (what == "arrive") return expects ? arrive<Arrive::expecting> : arrive<Arrive::plain>;
  if (what == "arrive_drop") {
    return expects ? arrive<Arrive::dropping_expecting> : arrive<Arrive::dropping>;
  }
  return nullptr;
}

}  // namespace longclock::emulator
