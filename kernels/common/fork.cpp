// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/fork.h"

#include <pthread.h>

#include <atomic>

namespace longclock {
namespace {

constinit std::atomic<bool> forked{false};
constinit GlobalMutex* all_mutexes = nullptr;  // filled while the library is loaded

[[maybe_unused]] const int registered =
    pthread_atfork([] { GlobalMutex::lock_all(); }, [] { GlobalMutex::unlock_all(); },
                   [] {
                     GlobalMutex::unlock_all();
                     forked.store(true, std::memory_order_relaxed);
                   });

}  // namespace

bool in_forked_child() { return forked.load(std::memory_order_relaxed); }

GlobalMutex::GlobalMutex() : next_(all_mutexes) { all_mutexes = this; }

void GlobalMutex::lock_all() {
  for (GlobalMutex* mutex = all_mutexes; mutex != nullptr; mutex = mutex->next_) mutex->lock();
}

void GlobalMutex::unlock_all() {
  for (GlobalMutex* mutex = all_mutexes; mutex != nullptr; mutex = mutex->next_) mutex->unlock();
}

}  // namespace longclock
