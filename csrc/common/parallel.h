// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>

namespace longclock {

// Threads that `work` (about one an element read) is worth: PyTorch's, at most; 1 in a forked
// child, whose OpenMP workers did not survive the fork.
int64_t worthwhile_threads(int64_t work);

// The exception of the first task, in order of tasks, that threw one. Exceptions may not cross
// parallel_for, which is a C function.
class FirstException {
 public:
  void keep(int64_t task, std::exception_ptr exception) {
    const std::lock_guard lock(mutex_);
    if (task < task_) {
      task_ = task;
      exception_ = exception;
    }
  }
  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::mutex mutex_;
  int64_t task_ = std::numeric_limits<int64_t>::max();
  std::exception_ptr exception_;
};

// Calls f(begin, end) until [0, count) is done, ranges handed to whichever thread is free. f's
// results must not depend on how the range is cut. What f throws is thrown here.
template <class F>
void parallel_tasks(int64_t count, int64_t work, const F& f) {
  const int64_t threads = std::min(worthwhile_threads(work), count);
  if (threads <= 1) {
    if (count > 0) f(0, count);
    return;
  }
  const int64_t step = std::max<int64_t>(1, count / (threads * 16));
  std::atomic<int64_t> next{0};
  FirstException first;
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (;;) {
      const int64_t begin = next.fetch_add(step, std::memory_order_relaxed);
      if (begin >= count) return;
      try {
        f(begin, std::min(begin + step, count));
      } catch (...) {
        first.keep(begin, std::current_exception());
      }
    }
  });
  first.rethrow();
}

// Calls f(begin, end) on [0, count) cut into one range a thread: where each call has work of its
// own that more ranges would multiply.
template <class F>
void parallel_shares(int64_t count, int64_t work, const F& f) {
  const int64_t threads = worthwhile_threads(work);
  const int64_t step = std::max<int64_t>(1, (count + threads - 1) / threads);
  parallel_tasks((count + step - 1) / step, work, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      f(part * step, std::min(count, (part + 1) * step));
    }
  });
}

// parallel_tasks over single elements, in ranges that are worth a call.
template <class F>
void parallel_elements(int64_t count, const F& f) {
  constexpr int64_t kStep = 4096;
  parallel_tasks((count + kStep - 1) / kStep, count * 16, [&](int64_t begin, int64_t end) {
    f(begin * kStep, std::min(end * kStep, count));
  });
}

}  // namespace longclock
