// SPDX-License-Identifier: Apache-2.0
#include "workers.h"

#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace longclock::emulator {
namespace {

// Never destroyed: a launch may come from a static destructor. After fork() only the thread that
// forked is left, so that the child makes a pool of its own.
struct Pool {
  std::mutex mutex;
  std::condition_variable wake, finished;
  const std::function<void(unsigned)>* work = nullptr;
  uint64_t round = 0;
  unsigned threads = 0;  // made so far
  unsigned wanted = 0;   // of this round
  unsigned running = 0;
  pid_t owner = getpid();

  void serve(unsigned worker) {
    uint64_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return round != seen; });
      seen = round;
      if (worker > wanted) continue;
      const auto* const now = work;
      lock.unlock();
      (*now)(worker);
      lock.lock();
      if (--running == 0) finished.notify_one();
    }
  }
};

Pool& pool() {
  static Pool* made = new Pool;
  if (made->owner != getpid()) made = new Pool;
  return *made;
}

}  // namespace

void run_on_workers(unsigned workers, const std::function<void(unsigned)>& work) {
  if (workers <= 1) return work(0);
  Pool& p = pool();
  {
    const std::lock_guard lock(p.mutex);
    while (p.threads + 1 < workers) {
      const unsigned worker = ++p.threads;
      std::thread([&p, worker] { p.serve(worker); }).detach();
    }
    p.work = &work;
    p.wanted = p.running = workers - 1;
    ++p.round;
  }
  p.wake.notify_all();
  work(0);
  std::unique_lock lock(p.mutex);
  p.finished.wait(lock, [&] { return p.running == 0; });
}

}  // namespace longclock::emulator
