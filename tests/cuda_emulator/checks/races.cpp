// SPDX-License-Identifier: Apache-2.0
// How knowledge moves: barriers, __syncwarp, fences, strong reads and writes.
#include "races.h"

#include <algorithm>

#include "../machine/lanes.h"
#include "race_state.h"

namespace longclock::emulator {
namespace {

std::atomic<uint32_t> launches{0};

void tick(BlockRaces::State::WarpState& w) { w.clock = std::min(w.clock + 1, Epoch::kMaxClock); }

// A snapshot as the grid sees it.
Knowledge to_knowledge(const BlockRaces::State& s, const BlockRaces::State::Snapshot& from) {
  const GridRaces::State& all = *s.all;
  auto out = std::make_shared<std::vector<uint32_t>>(all.knowledge_size(), 0);
  if (from.foreign) *out = *from.foreign;
  for (uint32_t v = 0; v < s.warps.size(); ++v) {
    uint32_t& clock = (*out)[all.index_of(s.first_agent + v)];
    clock = std::max(clock, from.known[v]);
  }
  return out;
}

// Takes what was published over: of other blocks as it is, of the own block warp by warp.
void learn(BlockRaces::State& s, BlockRaces::State::WarpState& w, const Knowledge& news) {
  w.foreign = join(w.foreign, news);
  if (s.all->by_block) return;
  for (uint32_t v = 0; v < s.warps.size(); ++v) {
    w.known[v] = std::max(w.known[v], (*news)[s.first_agent + v]);
  }
}

template <class F>
void for_published(BlockRaces::State& s, const Access& access, uint32_t lanes, F f) {
  if (!s.all->any_published.load(std::memory_order_acquire)) return;
  uint64_t before = 0;
  for_lanes(lanes, [&](unsigned l) {
    const uint64_t address = reinterpret_cast<uint64_t>(access.data[l]) & ~uint64_t{3};
    if (address == before) return;
    before = address;
    GridRaces::State::Shard& shard = s.all->shard_of(address);
    Knowledge found;
    {
      const std::lock_guard lock(shard.mutex);
      const auto at = shard.published.find(address);
      if (at != shard.published.end()) found = at->second;
    }
    if (found) f(found);
  });
}

// A write that is also a read goes on with what was published; a plain one replaces it.
void publish(BlockRaces::State& s, const Access& access, uint32_t lanes, const Knowledge& news) {
  if (!news && !s.all->any_published.load(std::memory_order_acquire)) return;
  for_lanes(lanes, [&](unsigned l) {
    const uint64_t address = reinterpret_cast<uint64_t>(access.data[l]) & ~uint64_t{3};
    GridRaces::State::Shard& shard = s.all->shard_of(address);
    const std::lock_guard lock(shard.mutex);
    if (!news) {
      if (!access.read) shard.published.erase(address);
      return;
    }
    Knowledge& at = shard.published[address];
    at = access.read ? join(at, news) : news;
    s.all->any_published.store(true, std::memory_order_release);
  });
}

}  // namespace

Knowledge join(const Knowledge& a, const Knowledge& b) {
  if (!a || a == b) return b;
  if (!b) return a;
  auto out = std::make_shared<std::vector<uint32_t>>(*a);
  for (size_t i = 0; i < out->size(); ++i) (*out)[i] = std::max((*out)[i], (*b)[i]);
  return out;
}

GridRaces::GridRaces(const Grid& grid) : state_(std::make_unique<State>()) {
  const LaunchConfig& c = grid.config;
  State& s = *state_;
  s.launch =
      launches.fetch_add(1, std::memory_order_relaxed) % ((1u << Epoch::kLaunchBits) - 1) + 1;
  s.block_warps = (c.block[0] * c.block[1] * c.block[2] + kWarpLanes - 1) / kWarpLanes;
  s.warps = uint64_t{c.grid[0]} * c.grid[1] * c.grid[2] * s.block_warps;
  s.by_block = s.warps > State::kMostWarps;
  s.between_blocks = s.warps <= Epoch::kMaxAgents;
  if (s.between_blocks) s.reads_done = std::vector<std::atomic<uint32_t>>(s.warps);
}
GridRaces::~GridRaces() = default;

BlockRaces::BlockRaces(Block& block) : state_(std::make_unique<State>()) {
  state_->grid = block.grid;
  state_->all = &block.grid->races->state();
  state_->warps.resize(block.warps.size());
  state_->first_agent =
      static_cast<uint32_t>(block.linear_index * block.warps.size() % Epoch::kMaxAgents);
}
BlockRaces::~BlockRaces() = default;

// What a warp fenced or saw before the barrier holds for all of them after it.
void BlockRaces::barrier(uint32_t warps) {
  State& s = *state_;
  std::array<uint32_t, State::kMostWarps> known{};
  Knowledge foreign;
  State::Snapshot fenced{};
  bool any_fenced = false;
  const auto raise = [&](auto& to, const auto& from) {
    for (uint32_t u = 0; u < s.warps.size(); ++u) to[u] = std::max(to[u], from[u]);
  };
  for_lanes(warps, [&](unsigned v) {
    State::WarpState& w = s.warps[v];
    for (const Knowledge& news : w.pending) learn(s, w, news);
    w.pending.clear();
    raise(known, w.known);
    known[v] = std::max(known[v], w.clock);
    foreign = join(foreign, w.foreign);
    if (!w.fenced) return;
    any_fenced = true;
    raise(fenced.known, w.fenced->known);
    fenced.foreign = join(fenced.foreign, w.fenced->foreign);
  });
  for_lanes(warps, [&](unsigned v) {
    State::WarpState& w = s.warps[v];
    w.known = known;
    w.foreign = foreign;
    if (any_fenced) {
      if (!w.fenced) w.fenced = std::make_unique<State::Snapshot>();
      *w.fenced = fenced;
    }
    w.synced.fill(w.clock);
    tick(w);
  });
}

void BlockRaces::sync_warp(Warp& warp, uint32_t lanes) {
  State::WarpState& w = state_->warps[warp.index];
  for_lanes(lanes, [&](unsigned l) { w.synced[l] = w.clock; });
  tick(w);
}

// Of the whole warp: lanes are not told apart between blocks.
void BlockRaces::fence(Warp& warp) {
  State::WarpState& w = state_->warps[warp.index];
  for (const Knowledge& news : w.pending) learn(*state_, w, news);
  w.pending.clear();
  if (!w.fenced) w.fenced = std::make_unique<State::Snapshot>();
  w.fenced->known = w.known;
  w.fenced->known[warp.index] = w.clock;
  w.fenced->foreign = w.foreign;
  tick(w);
}

void BlockRaces::acquire(Warp& warp, const Access& access, uint32_t lanes) {
  State::WarpState& w = state_->warps[warp.index];
  for_published(*state_, access, lanes, [&](const Knowledge& news) { learn(*state_, w, news); });
}

void BlockRaces::release(Warp& warp, const Access& access, uint32_t lanes) {
  State::WarpState& w = state_->warps[warp.index];
  State::Snapshot now{w.known, w.foreign};
  now.known[warp.index] = w.clock;
  publish(*state_, access, lanes, to_knowledge(*state_, now));
  tick(w);
}

void BlockRaces::relaxed_read(Warp& warp, const Access& access, uint32_t lanes) {
  State::WarpState& w = state_->warps[warp.index];
  for_published(*state_, access, lanes, [&](const Knowledge& news) {
    if (std::find(w.pending.begin(), w.pending.end(), news) == w.pending.end())
      w.pending.push_back(news);
  });
}

void BlockRaces::relaxed_write(Warp& warp, const Access& access, uint32_t lanes) {
  State::WarpState& w = state_->warps[warp.index];
  if (access.space != ptx::Space::shared && state_->all->between_blocks) {
    for (uint32_t v = 0; v < state_->warps.size(); ++v) {
      std::atomic<uint32_t>& done = state_->all->reads_done[state_->first_agent + v];
      const uint32_t clock = v == warp.index ? w.clock : w.known[v];
      if (done.load(std::memory_order_relaxed) < clock)
        done.store(clock, std::memory_order_relaxed);
    }
  }
  publish(*state_, access, lanes, w.fenced ? to_knowledge(*state_, *w.fenced) : nullptr);
}

}  // namespace longclock::emulator
