// SPDX-License-Identifier: Apache-2.0
// What the modifiers of loads, stores, atomics and mbarrier operations have in common.
#pragma once

#include <cstdint>
#include <string_view>

#include "../checks/races.h"
#include "../memory/access.h"
#include "block.h"
#include "decode.h"
#include "lanes.h"

namespace longclock::emulator {

struct MemoryForm {
  ptx::Space space = ptx::Space::none;
  uint8_t elements = 1;  // of a vector; an element of 128 bits counts as two of 64
  bool wide = false;     // elements are halves of 128-bit registers
  bool strong = false;   // volatile, relaxed, acquire, release, mmio
  bool acquire = false;
  bool release = false;
  bool frame = false;  // .param of a call: not memory that a profiler shows
};

// Space and order; type and vector are left to the caller. `address`: index of the textual operand.
MemoryForm memory_form(const Decode& d, size_t address);

// Whether lane l's data is global memory, where others see it.
inline bool is_global(const Warp& w, const Access& a, unsigned l) {
  if (a.space != ptx::Space::none) {
    return a.space == ptx::Space::global || a.space == ptx::Space::constant;
  }
  const std::byte* p = a.data[l];
  const Block& b = *w.block;
  const bool shared = p >= b.shared && p < b.shared + b.shared_bytes;
  return !shared && !(p >= w.local && p < w.local + w.local_stride * kWarpLanes);
}

// The lanes whose undefined bits are kept somewhere.
inline uint32_t tracked_lanes(const Access& a, uint32_t lanes) {
  if (!a.tracked) return 0;
  alignas(32) uint8_t bools[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) bools[l] = a.undefined[l] != nullptr ? 0xff : 0;
  return pack_lanes(bools) & lanes;
}

// Around the effect of a strong access, for races between threads.
inline void before_write(Warp& w, const MemoryForm& form, const Access& a, uint32_t lanes) {
  if (w.block->races == nullptr || lanes == 0) return;
  if (form.release) {
    w.block->races->release(w, a, lanes);
  } else {
    w.block->races->relaxed_write(w, a, lanes);
  }
}
inline void after_read(Warp& w, const MemoryForm& form, const Access& a, uint32_t lanes) {
  if (w.block->races == nullptr || lanes == 0) return;
  if (form.acquire) {
    w.block->races->acquire(w, a, lanes);
  } else {
    w.block->races->relaxed_read(w, a, lanes);
  }
}

}  // namespace longclock::emulator
