// SPDX-License-Identifier: Apache-2.0
#include "async_copies.h"

#include <algorithm>
#include <cstring>

#include "../checks/races.h"
#include "../counters/counters.h"
#include "../memory/access.h"
#include "block.h"
#include "lanes.h"
#include "program.h"

namespace longclock::emulator {

AsyncCopies& async_copies(Block& block) {
  if (block.async == nullptr) block.async = std::make_unique<AsyncCopies>(block.warps.size());
  return *block.async;
}

void AsyncCopies::issue(Warp& w, unsigned l, const Copy& copy) {
  Block& b = *w.block;
  if (b.shared_undefined != nullptr) {
    std::memset(b.shared_undefined + copy.offset, 0xff, copy.bytes);
  }
  if (b.shared_cells != nullptr && b.races != nullptr) {
    const uint32_t pc = static_cast<uint32_t>(copy.by - b.grid->program->code.data());
    mark_async_pending(w, b.shared_cells + copy.offset / 4, copy.bytes, pc);
  }
  lane(w, l).copies.push_back(copy);
}

void AsyncCopies::commit(Warp& w, uint32_t lanes) {
  for_lanes(lanes, [&](unsigned l) {
    Lane& mine = lane(w, l);
    mine.group_ends.push_back(static_cast<uint32_t>(mine.copies.size()));
  });
}

void AsyncCopies::wait(Warp& w, uint32_t lanes, uint64_t left) {
  uint32_t counts[kWarpLanes] = {};
  if (LaunchCounters* const counters = w.block->counters; counters != nullptr) {
    ++counters->copy_waits;
    for_lanes(lanes, [&](unsigned l) {
      for (const Copy& copy : lane(w, l).copies) counters->copy_wait_bytes += copy.read;
    });
  }
  for_lanes(lanes, [&](unsigned l) {
    std::vector<uint32_t>& ends = lane(w, l).group_ends;
    if (ends.size() <= left) return;
    const size_t groups = ends.size() - left;
    counts[l] = ends[groups - 1];
    ends.erase(ends.begin(), ends.begin() + static_cast<ptrdiff_t>(groups));
    for (uint32_t& end : ends) end -= counts[l];
  });
  arrive(w, lanes, counts, false);
}

void AsyncCopies::wait_all(Warp& w, uint32_t lanes) {
  commit(w, lanes);
  wait(w, lanes, 0);
}

void AsyncCopies::finish(Warp& w, uint32_t lanes) {
  uint32_t counts[kWarpLanes] = {};
  for_lanes(lanes, [&](unsigned l) {
    Lane& mine = lane(w, l);
    counts[l] = static_cast<uint32_t>(mine.copies.size());
    mine.group_ends.clear();
  });
  arrive(w, lanes, counts, true);
}

// The n-th copies of all lanes are mostly of one instruction, and become one write of the warp.
void AsyncCopies::arrive(Warp& w, uint32_t lanes, const uint32_t* counts, bool silent) {
  Block& b = *w.block;
  const bool races = b.shared_cells != nullptr && b.races != nullptr;
  uint32_t most = 0;
  for_lanes(lanes, [&](unsigned l) { most = std::max(most, counts[l]); });
  for (uint32_t n = 0; n < most; ++n) {
    uint32_t rest = 0;
    for_lanes(lanes, [&](unsigned l) { rest |= static_cast<uint32_t>(counts[l] > n) << l; });
    while (rest != 0) {
      const Copy& first = lane(w, static_cast<unsigned>(std::countr_zero(rest))).copies[n];
      Access a;
      a.space = ptx::Space::shared;
      a.bytes = first.bytes;
      a.write = true;
      RaceCell* cells[kWarpLanes] = {};
      const std::byte* values[kWarpLanes] = {};
      for_lanes(rest, [&](unsigned l) {
        const Copy& copy = lane(w, l).copies[n];
        if (copy.by != first.by || copy.bytes != first.bytes) return;
        a.lanes |= 1u << l;
        a.address[l] = copy.offset;
        a.data[l] = b.shared + copy.offset;
        a.undefined[l] = nullptr;
        values[l] = copy.data;
        std::memcpy(a.data[l], copy.data, copy.bytes);
        if (b.shared_undefined != nullptr) {
          a.undefined[l] = b.shared_undefined + copy.offset;
          std::memcpy(a.undefined[l], copy.undefined, copy.bytes);
        }
        if (races) {
          // No longer pending: whoever came in between has been reported.
          cells[l] = b.shared_cells + copy.offset / 4;
          std::fill_n(cells[l], copy.bytes / 4, RaceCell{});
        }
      });
      if (races && !silent) check_races(w, *first.by, a, a.lanes, cells, values);
      rest &= ~a.lanes;
    }
  }
  for_lanes(lanes, [&](unsigned l) {
    std::vector<Copy>& copies = lane(w, l).copies;
    copies.erase(copies.begin(), copies.begin() + counts[l]);
  });
}

}  // namespace longclock::emulator
