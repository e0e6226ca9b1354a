// SPDX-License-Identifier: Apache-2.0
// cp.async with its groups, cp.async.bulk of one dimension, and the table with mbarrier.
#include <cstring>
#include <string>

#include "../checks/report.h"
#include "async_copies.h"
#include "mbarrier.h"
#include "memory_form.h"

namespace longclock::emulator {
namespace {

using ptx::Space;

struct CopyForm {
  Space source = Space::global, destination = Space::shared;
  int64_t destination_offset = 0;  // the source's is Instruction::immediate
  int64_t barrier_offset = 0;
  uint32_t bytes = 0;  // 4, 8 or 16
  bool has_size = false;
  bool has_ignore = false;  // a predicate: copy zeros
  bool has_barrier = false;
};

const CopyForm& form_of(const Instruction& in) { return *static_cast<const CopyForm*>(in.extra); }

void gather_at(const Warp& w, const Instruction& in, unsigned operand, int64_t offset, Access& a) {
  Instruction other = in;
  other.immediate = offset;
  gather_addresses(w, other, operand, a);
}

// Operands: destination, source, then the size to read or the predicate.
void copy_async(Warp& w, const Instruction& in, uint32_t lanes) {
  const CopyForm& form = form_of(in);
  if (w.undefined != nullptr && in.count > 2) {
    const uint32_t undefined = w.undefined_lanes(in.operands[2]) & lanes;
    for_lanes(undefined, [&](unsigned l) {
      report(w, in, l, Fault::uninitialised, 0, "how much cp.async reads was never written");
    });
  }
  uint32_t sizes[kWarpLanes];
  const uint32_t ignored = form.has_ignore ? w.predicate(in.operands[2]) : 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    sizes[l] = form.has_size ? w.source<uint32_t>(in.operands[2])[l] : form.bytes;
    if ((ignored >> l) & 1) sizes[l] = 0;
    if (sizes[l] > form.bytes) sizes[l] = form.bytes;
  }

  AsyncCopies::Copy copies[kWarpLanes];
  const std::byte* values[kWarpLanes] = {};
  for_lanes(lanes, [&](unsigned l) {
    AsyncCopies::Copy& copy = copies[l];
    copy.by = &in;
    copy.bytes = form.bytes;
    std::memset(copy.data, 0, sizeof copy.data);  // what is not read becomes zeros
    std::memset(copy.undefined, 0, sizeof copy.undefined);
    values[l] = copy.data;
  });
  uint32_t good = 0;
  for (uint32_t rest = lanes; rest != 0;) {
    const uint32_t size = sizes[std::countr_zero(rest)];
    Access from;
    for_lanes(rest, [&](unsigned l) {
      if (sizes[l] == size) from.lanes |= 1u << l;
    });
    rest &= ~from.lanes;
    if (size == 0) {  // nothing is read: the address need not be one
      good |= from.lanes;
      continue;
    }
    from.space = form.source;
    from.bytes = size;
    from.align = form.bytes;
    from.read = true;
    gather_addresses(w, in, 1, from);
    const uint32_t readable = check_access(w, in, from);
    good |= readable;
    for_lanes(readable, [&](unsigned l) {
      std::memcpy(copies[l].data, from.data[l], size);
      copies[l].read = size;
      if (from.tracked && from.undefined[l] != nullptr) {
        std::memcpy(copies[l].undefined, from.undefined[l], size);
      }
    });
  }
  if (good == 0) return;

  Access to;
  to.space = form.destination;
  to.bytes = form.bytes;
  to.write = true;
  to.lanes = good;
  to.values = values;
  gather_at(w, in, 0, form.destination_offset, to);
  good = check_access(w, in, to);
  AsyncCopies& pending = async_copies(*w.block);
  for_lanes(good, [&](unsigned l) {
    copies[l].offset = static_cast<uint32_t>(to.data[l] - w.block->shared);
    pending.issue(w, l, copies[l]);
  });
}

void commit_group(Warp& w, const Instruction&, uint32_t lanes) {
  async_copies(*w.block).commit(w, lanes);
}

void wait_group(Warp& w, const Instruction& in, uint32_t lanes) {
  async_copies(*w.block).wait(w, lanes, static_cast<uint64_t>(in.immediate));
}

void wait_all(Warp& w, const Instruction&, uint32_t lanes) {
  async_copies(*w.block).wait_all(w, lanes);
}

// The copies arrive now; who reads them without waiting at the mbarrier is a race. Without .noinc
// the arrival was added to the phase first, which leaves the count as it is.
template <bool kNoIncrement>
void arrive_after_copies(Warp& w, const Instruction& in, uint32_t lanes) {
  const MemoryForm& form = *static_cast<const MemoryForm*>(in.extra);
  async_copies(*w.block).wait_all(w, lanes);
  Access a;
  a.space = form.space;
  a.lanes = lanes;
  gather_addresses(w, in, 0, a);
  const uint32_t good = check_mbarrier(w, in, a);
  before_write(w, form, a, good);
  if (!kNoIncrement) return;
  for_lanes(good, [&](unsigned l) { arrive_at(w, in, a, l, 1); });
}

Handler select_arrive(Decode& d) {
  MemoryForm form = memory_form(d, 0);
  form.strong = form.release = true;
  d.address(0);
  *d.make_extra<MemoryForm>() = form;
  d.out.own_definedness = true;
  return d.has("noinc") ? arrive_after_copies<true> : arrive_after_copies<false>;
}

// One lane's copy, in pieces of 16 bytes. It arrives at once; with an mbarrier as a release by the
// thread that issued it, so that whoever does not wait there races with it.
uint64_t copy_piecewise(Warp& w, const Instruction& in, unsigned l, const Access& from,
                        const Access& to, uint64_t bytes) {
  constexpr uint32_t kPiece = 16;
  for (uint64_t at = 0; at < bytes; at += kPiece) {
    Access read, write;
    read.space = from.space;
    write.space = to.space;
    read.bytes = write.bytes = kPiece;
    read.read = write.write = true;
    read.silent = write.silent = true;
    read.lanes = write.lanes = 1u << l;
    read.address[l] = from.address[l] + at;
    write.address[l] = to.address[l] + at;
    if (check_access(w, in, read) == 0) return at;
    std::byte data[kPiece], undefined[kPiece] = {};
    std::memcpy(data, read.data[l], kPiece);
    if (read.undefined[l] != nullptr) std::memcpy(undefined, read.undefined[l], kPiece);
    const std::byte* values[kWarpLanes] = {};
    values[l] = data;
    write.values = values;
    if (check_access(w, in, write) == 0) return at;
    std::memcpy(write.data[l], data, kPiece);
    if (is_global(w, write, l)) {
      bool any = false;
      for (std::byte& b : undefined) {
        any |= b != std::byte{0};
        b = std::byte{0};
      }
      if (any) {
        report(w, in, l, Fault::uninitialised, write.address[l],
               "a value that nobody wrote is copied to global memory");
      }
    }
    if (write.undefined[l] != nullptr) std::memcpy(write.undefined[l], undefined, kPiece);
  }
  return bytes;
}

// Operands: destination, source, size, then the mbarrier.
void copy_bulk(Warp& w, const Instruction& in, uint32_t lanes) {
  const CopyForm& form = form_of(in);
  Access to, from, barrier;
  to.space = form.destination;
  from.space = form.source;
  gather_at(w, in, 0, form.destination_offset, to);
  gather_addresses(w, in, 1, from);
  uint32_t undefined = to.undefined_address | from.undefined_address;
  if (w.undefined != nullptr) undefined |= w.undefined_lanes(in.operands[2]);
  for_lanes(undefined & lanes, [&](unsigned l) {
    report(w, in, l, Fault::uninitialised, 0, "an operand of cp.async.bulk was never written");
  });
  lanes &= ~undefined;
  const uint32_t* sizes = w.source<uint32_t>(in.operands[2]);
  uint32_t good = lanes;
  for_lanes(lanes, [&](unsigned l) {
    if (sizes[l] % 16 == 0) return;
    good &= ~(1u << l);
    report(w, in, l, Fault::misaligned, to.address[l],
           "cp.async.bulk of " + std::to_string(sizes[l]) + " bytes, not a multiple of 16");
  });
  if (form.has_barrier) {
    barrier.space = Space::shared;
    barrier.lanes = good;
    gather_at(w, in, 3, form.barrier_offset, barrier);
    good = check_mbarrier(w, in, barrier);
  }
  for_lanes(good, [&](unsigned l) { copy_piecewise(w, in, l, from, to, sizes[l]); });
  if (!form.has_barrier || good == 0) return;
  MemoryForm order;
  order.release = true;
  before_write(w, order, barrier, good);
  for_lanes(good, [&](unsigned l) { complete_bytes(w, barrier, l, sizes[l]); });
}

void do_nothing(Warp&, const Instruction&, uint32_t) {}

Space space_of(std::string_view modifier) {
  if (modifier == "global") return Space::global;
  return modifier.starts_with("shared") ? Space::shared : Space::none;
}

// cp.async.bulk.<destination>.<source>.{mbarrier::complete_tx::bytes, bulk_group}. Tensors,
// multicast and copies between blocks of a cluster are not known.
Handler select_bulk(Decode& d) {
  const std::string_view first = d.modifier(2);
  // What a copy reads it has read, and what it writes it has written, when it was issued.
  if (first == "commit_group" || first == "wait_group" || first == "prefetch") {
    return d.has("tensor") ? nullptr : do_nothing;
  }
  CopyForm form;
  form.destination = space_of(first);
  form.source = space_of(d.modifier(3));
  form.has_barrier = d.has("mbarrier::complete_tx::bytes");
  if (form.destination == Space::none || form.source == Space::none || d.has("tensor") ||
      d.has("multicast::cluster") || d.has("cp_mask") ||
      d.operands() < (form.has_barrier ? 4u : 3u)) {
    return nullptr;
  }
  d.address(0);
  form.destination_offset = d.out.immediate;
  d.address(1);
  const int64_t source_offset = d.out.immediate;
  d.source(2, 32);
  if (form.has_barrier) {
    d.address(3);
    form.barrier_offset = d.out.immediate;
  }
  d.out.immediate = source_offset;
  d.out.own_definedness = true;
  *d.make_extra<CopyForm>() = form;
  return copy_bulk;
}

Handler select_cp(Decode& d) {
  if (d.modifier(0) != "async") return nullptr;
  d.out.unit = Unit::async;
  const std::string_view what = d.modifier(1);
  if (what == "bulk") return select_bulk(d);
  if (what == "commit_group") return commit_group;
  if (what == "wait_all") return wait_all;
  if (what == "wait_group") {
    d.out.immediate = d.integer(0);
    return wait_group;
  }
  if (what == "mbarrier") return d.operands() == 1 ? select_arrive(d) : nullptr;
  if ((what != "ca" && what != "cg") || d.operands() < 3) return nullptr;

  CopyForm form;
  form.bytes = static_cast<uint32_t>(d.integer(2));
  if (form.bytes != 4 && form.bytes != 8 && form.bytes != 16) return nullptr;
  d.address(0);
  form.destination_offset = d.out.immediate;
  d.address(1);
  const size_t operands = d.operands() - (d.has("L2::cache_hint") ? 1 : 0);
  if (operands > 3) {
    d.source(3, 32);
    form.has_ignore = d.laid_out(2).kind == Operand::predicate;
    form.has_size = !form.has_ignore;
  }
  d.out.own_definedness = true;
  *d.make_extra<CopyForm>() = form;
  return copy_async;
}

constexpr Opcode kOpcodes[] = {{"cp", select_cp}, {"mbarrier", select_mbarrier}};

}  // namespace

std::span<const Opcode> async_opcodes() { return kOpcodes; }

}  // namespace longclock::emulator
