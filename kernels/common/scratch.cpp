// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/scratch.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#if defined(LONGCLOCK_SANITIZE_MEMORY)
#include <malloc.h>
#include <sanitizer/msan_interface.h>
#endif

namespace longclock {
namespace {

constexpr int64_t kAlignment = 64;

// One cache line at least: arrays of nothing have places of their own too.
int64_t round_up(int64_t bytes) {
  return std::max((bytes + kAlignment - 1) / kAlignment * kAlignment, kAlignment);
}

// For MemorySanitizer, which is told of nothing else that comes from the heap.
#if defined(LONGCLOCK_SANITIZE_MEMORY)
void mark_unwritten(void* block) { __msan_poison(block, malloc_usable_size(block)); }
void mark_written(void* block) { __msan_unpoison(block, malloc_usable_size(block)); }
#else
void mark_unwritten(void*) {}
void mark_written(void*) {}
#endif

// What a thread keeps: a stack for the scratches that are alive. It grows only while none is.
struct Kept {
  char* memory = nullptr;
  int64_t size = 0, used = 0;
  int64_t demand = 0;  // of the scratches that are alive, here or in blocks of their own
  int64_t wanted = 0;  // the largest demand within Scratch::kRetained

  ~Kept() { std::free(memory); }
};
thread_local Kept kept;

}  // namespace

Scratch::Scratch() : used_(kept.used), demand_(kept.demand) {
  if (kept.demand > 0 || kept.wanted <= kept.size) return;
  std::free(kept.memory);
  kept.memory =
      static_cast<char*>(std::aligned_alloc(kAlignment, static_cast<size_t>(kept.wanted)));
  kept.size = kept.memory == nullptr ? 0 : kept.wanted;
}

void* Scratch::take_bytes(int64_t bytes) {
  const int64_t size = round_up(bytes);
  kept.demand += size;
  if (kept.demand <= kRetained) kept.wanted = std::max(kept.wanted, kept.demand);
  if (size <= kept.size - kept.used) {
    void* taken = kept.memory + kept.used;
    kept.used += size;
    return taken;
  }
  // One cache line ahead of the block holds the link to the one before.
  void* block = std::aligned_alloc(kAlignment, static_cast<size_t>(size + kAlignment));
  if (block == nullptr) throw std::bad_alloc();
  mark_unwritten(block);
  *static_cast<void**>(block) = blocks_;
  blocks_ = block;
  return static_cast<char*>(block) + kAlignment;
}

Scratch::~Scratch() {
  kept.used = used_;
  kept.demand = demand_;
  while (blocks_ != nullptr) {
    void* before = *static_cast<void**>(blocks_);
    mark_written(blocks_);
    std::free(blocks_);
    blocks_ = before;
  }
}

}  // namespace longclock
