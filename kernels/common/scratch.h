// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "longclock/common/inline.h"

namespace longclock {

// Working memory of a kernel call, aligned to a cache line, cut into arrays by take(). A pointer
// stays valid until the scratch is gone. Throws std::bad_alloc.
//
// Each thread keeps the memory of its calls, up to kRetained bytes: memory that goes back to the
// system is handed out again page by page, which costs a search of a few milliseconds a third of
// its time. Under a sanitizer nothing is kept: each array is a block of its own, whose ends it
// knows, and whose contents it knows to be unwritten.
class Scratch {
 public:
#if defined(LONGCLOCK_SANITIZE)
  static constexpr int64_t kRetained = 0;
#else
  static constexpr int64_t kRetained = int64_t{8} << 20;
#endif

  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  LONGCLOCK_INLINE T* take(int64_t count) {
    return static_cast<T*>(take_bytes(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  void* take_bytes(int64_t bytes);
  int64_t used_, demand_;   // of the thread, as this scratch found it
  void* blocks_ = nullptr;  // of its own: a singly linked list
};

}  // namespace longclock
