// SPDX-License-Identifier: Apache-2.0
#include "scratch.h"

#include <cstdlib>
#include <new>

namespace longclock {
namespace {
constexpr int64_t kAlignment = 64;
}

void* Scratch::take_bytes(int64_t bytes) {
  // One cache line ahead of each block holds the link to the one before.
  const int64_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
  void* block = std::aligned_alloc(kAlignment, static_cast<size_t>(size));
  if (block == nullptr) throw std::bad_alloc();
  *static_cast<void**>(block) = blocks_;
  blocks_ = block;
  return static_cast<char*>(block) + kAlignment;
}

Scratch::~Scratch() {
  while (blocks_ != nullptr) {
    void* before = *static_cast<void**>(blocks_);
    std::free(blocks_);
    blocks_ = before;
  }
}

}  // namespace longclock
