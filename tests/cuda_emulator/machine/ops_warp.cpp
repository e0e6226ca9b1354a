// SPDX-License-Identifier: Apache-2.0
// Exchanges within a warp: shfl, vote, match, redux, elect and activemask. Lanes of one instruction
// may hold different member masks, such as the two halves of a warp; each group of lanes with the
// same mask is served by itself. None of these orders memory.

#include <bit>
#include <cstdint>

#include "decode.h"
#include "lanes.h"

namespace longclock::emulator {
namespace {

// Calls f(mask, group) for each distinct member mask among the lanes. Without a mask (the forms
// before .sync) whoever is here takes part.
template <class F>
void for_groups(const Warp& w, const Instruction& in, uint32_t lanes, F f) {
  if (in.member_mask < 0) {
    f(lanes, lanes);
    return;
  }
  const uint32_t* masks = w.source<uint32_t>(in.operands[in.member_mask]);
  while (lanes != 0) {
    const uint32_t mask = masks[std::countr_zero(lanes)];
    alignas(32) uint8_t same[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) same[l] = masks[l] == mask ? 0xff : 0;
    const uint32_t group = pack_lanes(same) & lanes;
    f(mask, group);
    lanes &= ~group;
  }
}

uint32_t undefined_mask(const Warp& w, const Instruction& in) {
  return in.member_mask < 0 ? 0 : w.undefined_lanes(in.operands[in.member_mask]);
}

// Marks a 32-bit result wholly undefined in some lanes.
void mark_whole(Warp& w, const Operand& operand, uint32_t undefined_lanes, uint32_t lanes) {
  w.mark(operand, undefined_lanes, lanes);
  if (operand.kind == Operand::predicate) return;
  uint32_t* bits = w.bits_of<uint32_t>(operand);
  for_lanes(undefined_lanes & lanes, [&](unsigned l) { bits[l] = kAllLanes; });
}

// The predicate of d|p; that of d|_ is a register that nobody reads.
void put_predicate(Warp& w, const Operand& operand, uint32_t value, uint32_t undefined_lanes,
                   uint32_t lanes) {
  if (operand.kind != Operand::predicate) return;
  w.set_predicate(operand, value, lanes);
  if (w.undefined != nullptr) w.mark(operand, undefined_lanes, lanes);
}

void member_mask(Decode& d, size_t operand) {
  d.source(operand, 32);
  d.out.member_mask = static_cast<int8_t>(d.out.count - 1);
}

// --- shfl: operands d, [p], a, b, c, [membermask]

enum class Shuffle { up, down, bfly, idx };

template <Shuffle kMode, bool kHasPredicate>
void shuffle(Warp& w, const Instruction& in, uint32_t lanes) {
  constexpr unsigned kFirst = kHasPredicate ? 2 : 1;
  const Operand* o = in.operands;
  const uint32_t* a = w.source<uint32_t>(o[kFirst]);
  const uint32_t* b = w.source<uint32_t>(o[kFirst + 1]);
  const uint32_t* c = w.source<uint32_t>(o[kFirst + 2]);
  alignas(32) int32_t from[kWarpLanes];
  alignas(32) uint8_t inside[kWarpLanes];
  alignas(32) uint32_t values[kWarpLanes];
  for (int32_t l = 0; l < static_cast<int32_t>(kWarpLanes); ++l) {
    const int32_t offset = static_cast<int32_t>(b[l] & 31);
    const int32_t clamp = static_cast<int32_t>(c[l] & 31);
    const int32_t segment = static_cast<int32_t>((c[l] >> 8) & 31);
    const int32_t last = (l & segment) | (clamp & ~segment);
    int32_t j = 0;
    if (kMode == Shuffle::up) j = l - offset;
    if (kMode == Shuffle::down) j = l + offset;
    if (kMode == Shuffle::bfly) j = l ^ offset;
    if (kMode == Shuffle::idx) j = (l & segment) | (offset & ~segment);
    const bool ok = kMode == Shuffle::up ? j >= last : j <= last;
    from[l] = ok ? j : l;
    inside[l] = ok ? 0xff : 0;
  }
  for (unsigned l = 0; l < kWarpLanes; ++l) values[l] = a[from[l]];

  uint32_t wild = 0;
  if (w.undefined != nullptr) {
    wild = (w.undefined_lanes(o[kFirst + 1]) | w.undefined_lanes(o[kFirst + 2]) |
            undefined_mask(w, in)) &
           lanes;
    uint32_t absent = 0;  // lanes that read one which takes no part: PTX leaves the value open
    for_groups(w, in, lanes, [&](uint32_t mask, uint32_t group) {
      const uint32_t there = mask & group;
      if (there == kAllLanes) return;
      for_lanes(group, [&](unsigned l) { absent |= (~there >> from[l] & 1) << l; });
    });
    const uint32_t source = w.undefined_lanes(o[kFirst]);
    uint32_t moved = 0;
    alignas(32) uint32_t bits[kWarpLanes] = {};
    if (source != 0) {
      const uint32_t* source_bits = w.bits_of<uint32_t>(o[kFirst]);
      for_lanes(lanes, [&](unsigned l) {
        moved |= (source >> from[l] & 1) << l;
        bits[l] = source_bits[from[l]];
      });
    }
    const uint32_t whole = wild | absent;
    w.mark(o[0], moved | whole, lanes);
    if ((moved | whole) != 0) {
      for_lanes(whole, [&](unsigned l) { bits[l] = kAllLanes; });
      store_lanes(w.bits_of<uint32_t>(o[0]), bits, (moved | whole) & lanes);
    }
  }
  store_lanes(w.result<uint32_t>(o[0]), values, lanes);
  if (kHasPredicate) put_predicate(w, o[1], pack_lanes(inside), wild, lanes);
}

template <Shuffle kMode>
Handler pick_shuffle(bool has_predicate) {
  return has_predicate ? shuffle<kMode, true> : shuffle<kMode, false>;
}

Handler select_shfl(Decode& d) {
  if (d.type() != "b32") return nullptr;
  const bool sync = d.has("sync");
  if (d.operands() != (sync ? 5u : 4u)) return nullptr;
  d.out.unit = Unit::shuffle;
  d.out.own_definedness = true;
  d.result(0, 32);
  const bool has_predicate = d.out.results == 2;
  for (size_t i = 1; i < 4; ++i) d.source(i, 32);
  if (sync) member_mask(d, 4);
  if (d.has("up")) return pick_shuffle<Shuffle::up>(has_predicate);
  if (d.has("down")) return pick_shuffle<Shuffle::down>(has_predicate);
  if (d.has("bfly")) return pick_shuffle<Shuffle::bfly>(has_predicate);
  if (d.has("idx")) return pick_shuffle<Shuffle::idx>(has_predicate);
  return nullptr;
}

// --- vote: operands d, p, [membermask]

enum class Vote { all, any, uni, ballot };

template <Vote kMode>
void vote(Warp& w, const Instruction& in, uint32_t lanes) {
  const Operand& result = in.operands[0];
  const uint32_t votes = w.predicate(in.operands[1]);
  const bool check = w.undefined != nullptr;
  const uint32_t unknown = check ? w.undefined_lanes(in.operands[1]) : 0;
  const uint32_t wild = check ? undefined_mask(w, in) : 0;
  alignas(32) uint32_t ballots[kWarpLanes] = {};
  alignas(32) uint32_t open[kWarpLanes] = {};
  uint32_t predicate = 0, undefined = 0;
  for_groups(w, in, lanes, [&](uint32_t mask, uint32_t group) {
    const uint32_t members = mask & group;
    const uint32_t yes = votes & members, no = ~votes & members;
    // One vote can settle the matter whatever the undefined ones are.
    const uint32_t doubt = unknown & members;
    if (kMode == Vote::ballot) {
      for_lanes(group, [&](unsigned l) {
        ballots[l] = yes;
        open[l] = doubt;
      });
      if (doubt != 0) undefined |= group;
    } else {
      const bool some_yes = (yes & ~doubt) != 0, some_no = (no & ~doubt) != 0;
      const bool settled = doubt == 0 || (kMode == Vote::all && some_no) ||
                           (kMode == Vote::any && some_yes) ||
                           (kMode == Vote::uni && some_yes && some_no);
      if (!settled) undefined |= group;
      const bool value = kMode == Vote::all   ? no == 0
                         : kMode == Vote::any ? yes != 0
                                              : yes == 0 || no == 0;
      if (value) predicate |= group;
    }
  });
  if (check) {
    if (kMode == Vote::ballot) {
      w.mark(result, undefined | wild, lanes);
      for_lanes(wild & lanes, [&](unsigned l) { open[l] = kAllLanes; });
      store_lanes(w.bits_of<uint32_t>(result), open, (undefined | wild) & lanes);
    } else {
      w.mark(result, undefined | wild, lanes);
    }
  }
  if (kMode == Vote::ballot)
    store_lanes(w.result<uint32_t>(result), ballots, lanes);
  else
    w.set_predicate(result, predicate, lanes);
}

Handler select_vote(Decode& d) {
  const bool sync = d.has("sync");
  if (d.operands() != (sync ? 3u : 2u)) return nullptr;
  const bool ballot = d.has("ballot");
  d.out.unit = Unit::shuffle;
  d.out.own_definedness = true;
  d.result(0, ballot ? 32 : 1);
  d.source(1, 1);
  if (sync) member_mask(d, 2);
  if (ballot) return vote<Vote::ballot>;
  if (d.has("all")) return vote<Vote::all>;
  if (d.has("any")) return vote<Vote::any>;
  if (d.has("uni")) return vote<Vote::uni>;
  return nullptr;
}

// --- match: operands d, [p], a, membermask

template <class T, bool kAll, bool kHasPredicate>
void match(Warp& w, const Instruction& in, uint32_t lanes) {
  const Operand* o = in.operands;
  const Operand& source = o[kHasPredicate ? 2 : 1];
  const T* a = w.source<T>(source);
  const bool check = w.undefined != nullptr;
  const uint32_t unknown = check ? w.undefined_lanes(source) | undefined_mask(w, in) : 0;
  alignas(32) uint32_t values[kWarpLanes] = {};
  uint32_t predicate = 0, undefined = 0;
  for_groups(w, in, lanes, [&](uint32_t mask, uint32_t group) {
    const uint32_t members = mask & group;
    if (((members | group) & unknown) != 0) undefined |= group;
    for (uint32_t rest = group; rest != 0;) {
      const T value = a[std::countr_zero(rest)];
      alignas(32) uint8_t bools[kWarpLanes];
      for (unsigned l = 0; l < kWarpLanes; ++l) bools[l] = a[l] == value ? 0xff : 0;
      const uint32_t same = pack_lanes(bools);
      const uint32_t peers = same & members;
      if (kAll) {
        const bool equal = peers == members;
        for_lanes(group, [&](unsigned l) { values[l] = equal ? members : 0; });
        if (equal) predicate |= group;
        return;
      }
      for_lanes(same & rest, [&](unsigned l) { values[l] = peers; });
      rest &= ~same;
    }
  });
  if (check) mark_whole(w, o[0], undefined, lanes);
  store_lanes(w.result<uint32_t>(o[0]), values, lanes);
  if (kHasPredicate) put_predicate(w, o[1], predicate, undefined, lanes);
}

Handler select_match(Decode& d) {
  const bool wide = d.has("b64");
  if (d.operands() != 3 || !d.has("sync") || !(wide || d.has("b32"))) return nullptr;
  d.out.unit = Unit::shuffle;
  d.out.own_definedness = true;
  d.result(0, 32);
  const bool has_predicate = d.out.results == 2;
  d.source(1, wide ? 64 : 32);
  member_mask(d, 2);
  if (d.has("any") && !has_predicate)
    return wide ? match<uint64_t, false, false> : match<uint32_t, false, false>;
  if (!d.has("all")) return nullptr;
  if (has_predicate) return wide ? match<uint64_t, true, true> : match<uint32_t, true, true>;
  return wide ? match<uint64_t, true, false> : match<uint32_t, true, false>;
}

// --- redux: operands d, a, membermask

struct Plain {
  static uint32_t first(uint32_t a) { return a; }
};
struct Add : Plain {
  static uint32_t combine(uint32_t a, uint32_t b) { return a + b; }
};
struct And : Plain {
  static uint32_t combine(uint32_t a, uint32_t b) { return a & b; }
};
struct Or : Plain {
  static uint32_t combine(uint32_t a, uint32_t b) { return a | b; }
};
struct Xor : Plain {
  static uint32_t combine(uint32_t a, uint32_t b) { return a ^ b; }
};
template <class T, bool kMax>
struct Extreme : Plain {
  static uint32_t combine(uint32_t a, uint32_t b) {
    const T x = static_cast<T>(a), y = static_cast<T>(b);
    return (kMax ? x > y : x < y) ? a : b;
  }
};
constexpr uint32_t kCanonicalNan = 0x7fffffff;

template <bool kMax, bool kAbs, bool kNan>
struct FloatExtreme {
  static bool is_nan(uint32_t a) { return (a & 0x7fffffff) > 0x7f800000; }
  // Orders floats as integers, -0 below +0.
  static int32_t key(uint32_t a) {
    return static_cast<int32_t>(a ^ (static_cast<uint32_t>(static_cast<int32_t>(a) >> 31) >> 1));
  }
  static uint32_t first(uint32_t a) { return combine(a, a); }
  static uint32_t combine(uint32_t a, uint32_t b) {
    if (kAbs) a &= 0x7fffffff, b &= 0x7fffffff;
    if (is_nan(a) || is_nan(b)) {
      if (kNan || (is_nan(a) && is_nan(b))) return kCanonicalNan;
      return is_nan(a) ? b : a;
    }
    return (kMax ? key(a) > key(b) : key(a) < key(b)) ? a : b;
  }
};

template <class Op>
void reduce(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t* a = w.source<uint32_t>(in.operands[1]);
  const bool check = w.undefined != nullptr;
  const uint32_t unknown = check ? w.undefined_lanes(in.operands[1]) : 0;
  uint32_t undefined = check ? undefined_mask(w, in) & lanes : 0;
  alignas(32) uint32_t values[kWarpLanes] = {};
  for_groups(w, in, lanes, [&](uint32_t mask, uint32_t group) {
    const uint32_t members = mask & group;
    if ((members & unknown) != 0) undefined |= group;
    const uint32_t set = members != 0 ? members : group;
    uint32_t total = Op::first(a[std::countr_zero(set)]);
    for_lanes(set & (set - 1), [&](unsigned l) { total = Op::combine(total, a[l]); });
    for_lanes(group, [&](unsigned l) { values[l] = total; });
  });
  if (check) mark_whole(w, in.operands[0], undefined, lanes);
  store_lanes(w.result<uint32_t>(in.operands[0]), values, lanes);
}

template <bool kMax>
Handler pick_float_extreme(bool abs, bool nan) {
  if (abs)
    return nan ? reduce<FloatExtreme<kMax, true, true>> : reduce<FloatExtreme<kMax, true, false>>;
  return nan ? reduce<FloatExtreme<kMax, false, true>> : reduce<FloatExtreme<kMax, false, false>>;
}

Handler select_redux(Decode& d) {
  if (d.operands() != 3 || !d.has("sync")) return nullptr;
  d.out.unit = Unit::shuffle;
  d.out.own_definedness = true;
  d.result(0, 32);
  d.source(1, 32);
  member_mask(d, 2);
  const bool max = d.has("max"), min = d.has("min");
  if (d.type() == "f32") {
    if (max) return pick_float_extreme<true>(d.has("abs"), d.has("NaN"));
    return min ? pick_float_extreme<false>(d.has("abs"), d.has("NaN")) : nullptr;
  }
  if (d.type() == "b32") {
    if (d.has("and")) return reduce<And>;
    if (d.has("or")) return reduce<Or>;
    return d.has("xor") ? reduce<Xor> : nullptr;
  }
  const bool is_signed = d.type() == "s32";
  if (!is_signed && d.type() != "u32") return nullptr;
  if (d.has("add")) return reduce<Add>;
  if (max) return is_signed ? reduce<Extreme<int32_t, true>> : reduce<Extreme<uint32_t, true>>;
  if (min) return is_signed ? reduce<Extreme<int32_t, false>> : reduce<Extreme<uint32_t, false>>;
  return nullptr;
}

// --- activemask d; elect.sync d|p, membermask

void active_mask(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t* d = w.result<uint32_t>(in.operands[0]);
  for_lanes(lanes, [&](unsigned l) { d[l] = lanes; });
  if (w.undefined != nullptr) w.mark(in.operands[0], 0, lanes);
}

Handler select_activemask(Decode& d) {
  d.out.unit = Unit::shuffle;
  d.out.own_definedness = true;
  d.result(0, 32);
  return active_mask;
}

// The hardware is free to choose; the lowest lane it is.
void elect(Warp& w, const Instruction& in, uint32_t lanes) {
  const Operand* o = in.operands;
  alignas(32) uint32_t leaders[kWarpLanes] = {};
  uint32_t predicate = 0;
  for_groups(w, in, lanes, [&](uint32_t mask, uint32_t group) {
    const uint32_t members = (mask & group) != 0 ? mask & group : group;
    const uint32_t leader = static_cast<uint32_t>(std::countr_zero(members));
    for_lanes(group, [&](unsigned l) { leaders[l] = leader; });
    predicate |= 1u << leader;
  });
  uint32_t undefined = 0;
  if (w.undefined != nullptr) {
    undefined = undefined_mask(w, in) & lanes;
    mark_whole(w, o[0], undefined, lanes);
  }
  store_lanes(w.result<uint32_t>(o[0]), leaders, lanes);
  put_predicate(w, o[1], predicate, undefined, lanes);
}

Handler select_elect(Decode& d) {
  if (d.operands() != 2 || !d.has("sync")) return nullptr;
  d.out.unit = Unit::shuffle;
  d.out.own_definedness = true;
  d.result(0, 32);
  member_mask(d, 1);
  return d.out.results == 2 ? elect : nullptr;
}

constexpr Opcode kOpcodes[] = {
    {"shfl", select_shfl},   {"vote", select_vote},   {"match", select_match},
    {"redux", select_redux}, {"elect", select_elect}, {"activemask", select_activemask},
};

}  // namespace

std::span<const Opcode> warp_opcodes() { return kOpcodes; }

}  // namespace longclock::emulator
