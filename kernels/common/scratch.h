// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "inline.h"

namespace longclock {

// Working memory of a kernel call, aligned to a cache line, cut into arrays by take(). Grows by
// blocks, so a pointer stays valid until the scratch is gone. Throws std::bad_alloc.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  LONGCLOCK_INLINE T* take(int64_t count) {
    return static_cast<T*>(take_bytes(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  void* take_bytes(int64_t bytes);
  void* blocks_ = nullptr;  // a singly linked list
};

}  // namespace longclock
