// SPDX-License-Identifier: Apache-2.0
// Global memory as a map of address ranges. Allocations lie apart, so that an access that runs past
// an end hits none; freed ones are kept for a while, so that it can be told what they were. Shadow
// arrays are anonymous mappings: the system zeroes the pages that are touched and no others.
#include "memory_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "../emulator.h"

namespace longclock::emulator {
namespace {

constexpr uint64_t kGap = 256;  // bytes on either side, and the alignment
constexpr uint64_t kQuarantineBytes = uint64_t{256} << 20;
constexpr uint64_t kMapped = uint64_t{1} << 17;  // from here on pages come from mmap

void* zeroed(uint64_t bytes) {
  if (bytes < kMapped) return std::calloc(1, std::max<uint64_t>(bytes, 1));
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

void free_zeroed(void* p, uint64_t bytes) {
  if (p == nullptr) return;
  if (bytes < kMapped) {
    std::free(p);
  } else {
    munmap(p, bytes);
  }
}

uint64_t cell_bytes(const Allocation& a) { return a.words() * sizeof(RaceCell); }
uint64_t touched_bytes(const Allocation& a) { return (a.words() + 63) / 64 * 8; }
// Room for the gaps and for moving the begin up to the alignment.
uint64_t storage_bytes(uint64_t bytes) { return bytes + 3 * kGap; }

// Made by whoever comes first; the others' copies go.
template <class T>
T* made_once(std::atomic<T*>& slot, uint64_t bytes) {
  T* present = slot.load(std::memory_order_acquire);
  if (present != nullptr) return present;
  T* made = static_cast<T*>(zeroed(bytes));
  if (made == nullptr) return nullptr;
  if (slot.compare_exchange_strong(present, made, std::memory_order_acq_rel)) return made;
  free_zeroed(made, bytes);
  return present;
}

bool make_undefined(Allocation& a, std::byte value) {
  if (a.undefined != nullptr) return true;
  a.undefined = static_cast<std::byte*>(zeroed(a.bytes));
  if (a.undefined == nullptr) return false;
  if (value != std::byte{0}) std::memset(a.undefined, static_cast<int>(value), a.bytes);
  return true;
}

}  // namespace

RaceCell* Allocation::race_cells() { return made_once(cells, cell_bytes(*this)); }

std::atomic<uint64_t>* Allocation::touched_words() {
  return made_once(touched, touched_bytes(*this));
}

Allocation::~Allocation() {
  free_zeroed(undefined, bytes);
  free_zeroed(cells.load(), cell_bytes(*this));
  free_zeroed(touched.load(), touched_bytes(*this));
  if (storage != nullptr) free_zeroed(storage, storage_bytes(bytes));
}

Allocation* MemoryMap::allocate(uint64_t bytes, MemoryKind kind, std::string name) {
  if (bytes > (uint64_t{1} << 46)) return nullptr;
  auto a = std::make_unique<Allocation>();
  a->storage = zeroed(storage_bytes(bytes));
  if (a->storage == nullptr) return nullptr;
  a->begin = (reinterpret_cast<uint64_t>(a->storage) + 2 * kGap - 1) / kGap * kGap;
  a->bytes = bytes;
  a->kind = kind;
  a->read_only = kind == MemoryKind::constant;
  a->name = std::move(name);
  // The host writes managed and pinned memory without telling; variables have initial values.
  if (kind == MemoryKind::device && (options().checks & kCheckInitialised) != 0) {
    if (!make_undefined(*a, std::byte{0xff})) return nullptr;
  }
  std::unique_lock lock(mutex_);
  Allocation* result = a.get();
  // A stale declaration may stand where the host's allocator now put this.
  erase_declared(a->begin, a->begin + std::max<uint64_t>(bytes, 1));
  allocations_[a->begin] = std::move(a);
  bytes_in_use_ += bytes;
  ++generation_;
  return result;
}

bool MemoryMap::release(const void* address) {
  const uint64_t begin = reinterpret_cast<uint64_t>(address);
  std::unique_lock lock(mutex_);
  const auto it = allocations_.find(begin);
  if (it == allocations_.end() || it->second->freed || it->second->kind == MemoryKind::declared) {
    return false;
  }
  Allocation& a = *it->second;
  a.freed = true;
  bytes_in_use_ -= a.bytes;
  quarantined_bytes_ += a.bytes;
  quarantine_.push_back(begin);
  evict();
  ++generation_;
  return true;
}

void MemoryMap::evict() {
  size_t gone = 0;
  while (quarantined_bytes_ > kQuarantineBytes && gone < quarantine_.size()) {
    const auto it = allocations_.find(quarantine_[gone++]);
    quarantined_bytes_ -= it->second->bytes;
    allocations_.erase(it);
  }
  quarantine_.erase(quarantine_.begin(), quarantine_.begin() + static_cast<ptrdiff_t>(gone));
}

// A view of memory that is known already changes only its definedness; so does a tensor in CUDA
// memory. Declared ranges that the new one meets otherwise are stale: it replaces them.
Allocation* MemoryMap::declare(const void* address, uint64_t bytes, bool read_only,
                               bool undefined) {
  const uint64_t begin = reinterpret_cast<uint64_t>(address), end = begin + bytes;
  std::unique_lock lock(mutex_);
  ++generation_;
  Allocation* known = containing(begin);
  if (known != nullptr && !known->freed && known->begin + known->bytes >= end) {
    const bool declared = known->kind == MemoryKind::declared;
    if (!declared || known->begin != begin) {
      if (undefined) make_undefined(*known, std::byte{0});
      if (known->undefined != nullptr && (undefined || declared)) {
        std::memset(known->undefined + (begin - known->begin), undefined ? 0xff : 0, bytes);
      }
      if (declared && !read_only) known->read_only = false;
      return known;
    }
  }
  erase_declared(begin, end);
  // An allocation that is shorter than what is declared of it: it rules.
  if (const auto it = allocations_.find(begin); it != allocations_.end()) return it->second.get();
  auto a = std::make_unique<Allocation>();
  a->begin = begin;
  a->bytes = bytes;
  a->kind = MemoryKind::declared;
  a->read_only = read_only;
  if (undefined) make_undefined(*a, std::byte{0xff});
  longest_declared_ = std::max(longest_declared_, bytes);
  return (allocations_[begin] = std::move(a)).get();
}

void MemoryMap::erase_declared(uint64_t begin, uint64_t end) {
  auto it = allocations_.lower_bound(begin - std::min(begin, longest_declared_));
  while (it != allocations_.end() && it->first < end) {
    const Allocation& other = *it->second;
    const bool meets = other.kind == MemoryKind::declared && other.begin + other.bytes > begin;
    it = meets ? allocations_.erase(it) : std::next(it);
  }
}

void MemoryMap::forget(const void* address) {
  std::unique_lock lock(mutex_);
  const auto it = allocations_.find(reinterpret_cast<uint64_t>(address));
  if (it == allocations_.end() || it->second->kind != MemoryKind::declared) return;
  allocations_.erase(it);
  ++generation_;
}

Allocation* MemoryMap::containing(uint64_t address) {
  const auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin()) return nullptr;
  Allocation* a = std::prev(it)->second.get();
  return a->contains(address, 1) ? a : nullptr;
}

Allocation* MemoryMap::find(uint64_t address) {
  std::shared_lock lock(mutex_);
  const auto after = allocations_.upper_bound(address);
  Allocation* above = after == allocations_.end() ? nullptr : after->second.get();
  if (after == allocations_.begin()) return above;
  Allocation* below = std::prev(after)->second.get();
  if (below->contains(address, 1) || above == nullptr) return below;
  // In between: what an access past an end or before a begin most likely meant.
  return address - (below->begin + below->bytes) <= above->begin - address ? below : above;
}

void MemoryMap::define(const void* address, uint64_t bytes) {
  const uint64_t begin = reinterpret_cast<uint64_t>(address);
  std::shared_lock lock(mutex_);
  Allocation* a = containing(begin);
  if (a == nullptr || a->undefined == nullptr) return;
  const uint64_t offset = begin - a->begin;
  std::memset(a->undefined + offset, 0, std::min(bytes, a->bytes - offset));
}

void MemoryMap::copy_state(void* destination, const void* source, uint64_t bytes) {
  const uint64_t to_address = reinterpret_cast<uint64_t>(destination);
  const uint64_t from_address = reinterpret_cast<uint64_t>(source);
  std::shared_lock lock(mutex_);
  Allocation* to = containing(to_address);
  if (to == nullptr || to->undefined == nullptr) return;
  const uint64_t to_offset = to_address - to->begin;
  bytes = std::min(bytes, to->bytes - to_offset);
  const Allocation* from = containing(from_address);
  const uint64_t from_offset = from == nullptr ? 0 : from_address - from->begin;
  if (from == nullptr || from->undefined == nullptr || from->bytes - from_offset < bytes) {
    std::memset(to->undefined + to_offset, 0, bytes);
  } else {
    std::memmove(to->undefined + to_offset, from->undefined + from_offset, bytes);
  }
}

uint64_t MemoryMap::bytes_in_use() const {
  std::shared_lock lock(mutex_);
  return bytes_in_use_;
}

std::vector<const Allocation*> MemoryMap::live(MemoryKind kind) const {
  std::shared_lock lock(mutex_);
  std::vector<const Allocation*> result;
  for (const auto& [begin, a] : allocations_) {
    if (a->kind == kind && !a->freed) result.push_back(a.get());
  }
  return result;
}

void MemoryMap::begin_launch() {
  std::unique_lock lock(mutex_);
  for (const auto& [begin, a] : allocations_) {
    free_zeroed(a->touched.exchange(nullptr), touched_bytes(*a));
  }
}

MemoryMap& memory_map() {
  static MemoryMap* const map = new MemoryMap;  // never destroyed: kernels may run in destructors
  return *map;
}

void declare_memory(const void* address, uint64_t bytes, bool read_only, bool undefined) {
  if (bytes != 0) memory_map().declare(address, bytes, read_only, undefined);
}

void forget_memory(const void* address) { memory_map().forget(address); }

}  // namespace longclock::emulator

extern "C" {
void longclock_emulator_declare_memory(const void* address, uint64_t bytes, int read_only,
                                       int undefined) {
  longclock::emulator::declare_memory(address, bytes, read_only != 0, undefined != 0);
}
void longclock_emulator_forget_memory(const void* address) {
  longclock::emulator::forget_memory(address);
}
}
