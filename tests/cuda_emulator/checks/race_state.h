// SPDX-License-Identifier: Apache-2.0
// What warps know of one another. Shared by races.cpp, which moves knowledge, and race_check.cpp.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "../machine/block.h"
#include "epoch.h"
#include "races.h"

namespace longclock::emulator {

// The last clock that is known of each agent of the grid: of each warp in small grids, of each
// block in large ones, where it is the latest of its warps' (coarser: may hide a race, never
// invents one).
using Knowledge = std::shared_ptr<const std::vector<uint32_t>>;

struct GridRaces::State {
  static constexpr uint32_t kMostWarps = 8192;  // to be known one by one
  static constexpr size_t kShards = 64;

  uint32_t launch = 0;
  uint64_t warps = 0;  // of the grid
  uint32_t block_warps = 0;
  bool by_block = false;
  bool between_blocks = true;  // false: the grid is too large for an epoch's agent

  struct Shard {
    std::mutex mutex;
    std::unordered_map<uint64_t, Knowledge> published;  // by address
  };
  // Up to which clock each warp's reads came before a strong write of its block, with a fence or
  // without: the written value may depend on them, and hardware respects that.
  std::vector<std::atomic<uint32_t>> reads_done;
  std::array<Shard, kShards> shards;
  std::atomic<bool> any_published = false;

  size_t knowledge_size() const {
    return by_block ? (warps + block_warps - 1) / block_warps : warps;
  }
  size_t index_of(uint32_t agent) const { return by_block ? agent / block_warps : agent; }
  Shard& shard_of(uint64_t address) { return shards[(address >> 2 ^ address >> 12) % kShards]; }
};

struct BlockRaces::State {
  static constexpr unsigned kMostWarps = 32;
  // What was known at the last fence, which a strong write publishes.
  struct Snapshot {
    std::array<uint32_t, kMostWarps> known;
    Knowledge foreign;
  };
  struct WarpState {
    uint32_t clock = 1;
    std::array<uint32_t, kMostWarps> known{};  // clocks of the block's warps
    std::array<uint32_t, kWarpLanes>
        synced{};       // own clock at the last __syncwarp or barrier of a lane
    Knowledge foreign;  // of other blocks
    std::unique_ptr<Snapshot> fenced;
    std::vector<Knowledge> pending;  // read by strong reads, known after the next fence
  };

  Grid* grid = nullptr;
  GridRaces::State* all = nullptr;
  uint32_t first_agent = 0;
  std::vector<WarpState> warps;
};

Knowledge join(const Knowledge& a, const Knowledge& b);

}  // namespace longclock::emulator
