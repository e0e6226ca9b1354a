// SPDX-License-Identifier: Apache-2.0
// Global memory: what kernels may address, and the shadow state of every byte of it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <vector>

#include "race_cell.h"

namespace longclock::emulator {

enum class MemoryKind : uint8_t { device, managed, pinned, variable, constant, declared };

struct Allocation {
  uint64_t begin = 0;
  uint64_t bytes = 0;
  MemoryKind kind = MemoryKind::device;
  bool read_only = false;
  bool freed = false;
  std::string name;         // of a variable; else empty
  void* storage = nullptr;  // what to free; nullptr: somebody else's memory

  // Shadow, made on demand, zeroed by the system page by page. A set bit of `undefined` is a bit
  // that nobody wrote; nullptr: all were written.
  std::byte* undefined = nullptr;          // [bytes]
  std::atomic<RaceCell*> cells = nullptr;  // of the words from begin & ~3 on
  std::atomic<std::atomic<uint64_t>*> touched =
      nullptr;  // a bit per 4 bytes, of the present launch

  bool contains(uint64_t address, uint64_t size) const {
    return address >= begin && address - begin + size <= bytes;
  }
  // The 4-byte word of an address: index into cells, bit of touched.
  uint64_t word_of(uint64_t address) const { return (address - (begin & ~uint64_t{3})) / 4; }
  uint64_t words() const { return bytes / 4 + 2; }
  RaceCell* race_cells();  // nullptr where the host has no more memory
  std::atomic<uint64_t>* touched_words();
  ~Allocation();
};

// Freed allocations stay for a while, unusable, so that late accesses can be named.
class MemoryMap {
 public:
  // Aligned to 256 bytes, with a gap to its neighbours. nullptr where the host has no more memory.
  Allocation* allocate(uint64_t bytes, MemoryKind kind, std::string name = {});
  bool release(const void* address);  // false: not the begin of a live allocation
  Allocation* declare(const void* address, uint64_t bytes, bool read_only, bool undefined);
  void forget(const void* address);

  // The allocation that holds the address, or the nearest one for messages (not containing it);
  // nullptr where there is none. Valid while no launch is running or this launch runs.
  Allocation* find(uint64_t address);
  // Host-side writes (cudaMemcpy, cudaMemset) define bytes; device-to-device copies carry the
  // state.
  void define(const void* address, uint64_t bytes);
  void copy_state(void* destination, const void* source, uint64_t bytes);
  uint64_t bytes_in_use() const;
  std::vector<const Allocation*> live(MemoryKind kind) const;
  void begin_launch();  // clears `touched`
  // Changes whenever an Allocation appears, goes or is freed: what find() returned may be kept
  // while it stays.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  Allocation* containing(uint64_t address);  // nullptr: none; the lock is held
  void evict();
  void erase_declared(uint64_t begin, uint64_t end);

  mutable std::shared_mutex mutex_;
  std::map<uint64_t, std::unique_ptr<Allocation>> allocations_;
  std::vector<uint64_t> quarantine_;  // begins of freed allocations, oldest first
  uint64_t quarantined_bytes_ = 0;
  uint64_t bytes_in_use_ = 0;
  uint64_t longest_declared_ = 0;  // how far before an address a range that holds it can begin
  std::atomic<uint64_t> generation_ = 1;
};
MemoryMap& memory_map();  // lives before and after every static constructor and destructor

}  // namespace longclock::emulator
