// SPDX-License-Identifier: Apache-2.0
// What a process may rely on after fork(): the child has one thread, whatever its parent had.
#pragma once

#include <mutex>

namespace longclock {

// Whether fork() made this process. A pool of threads did not survive it, as PyTorch's OpenMP
// workers: whatever is handed out to them would wait for ever.
bool in_forked_child();

// Guards state of the whole process. A fork waits until nobody holds it: else the child would find
// it locked by a thread that it does not have. Holders take no second one. For static objects only.
class GlobalMutex {
 public:
  GlobalMutex();
  GlobalMutex(const GlobalMutex&) = delete;
  GlobalMutex& operator=(const GlobalMutex&) = delete;
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  // For the handlers of a fork.
  static void lock_all();
  static void unlock_all();

 private:
  std::mutex mutex_;
  GlobalMutex* next_;
};

}  // namespace longclock
