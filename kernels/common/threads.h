// SPDX-License-Identifier: Apache-2.0
// Work that is handed out to threads, whosever they are.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "longclock/common/row_shares.h"

namespace longclock {

// Calls body() on at most `count` threads at once, one of which may be the caller's, and returns
// when all calls have returned. They share what is to be done: a single one does all of it. body()
// does not throw.
using RunOnThreads = std::function<void(int64_t count, const std::function<void()>& body)>;

// On the caller's thread and on others that are started for it, as many as the system grants.
void run_on_std_threads(int64_t count, const std::function<void()>& body);

// The threads of a call: how many at most, and who has them. A pool takes the place of
// run_on_std_threads where starting a thread, some ten microseconds, is too dear.
struct Threads {
  int64_t count = 1;
  RunOnThreads run = run_on_std_threads;
};

// Threads that `work` (about one an element read) is worth.
int64_t worthwhile_threads(const Threads& threads, int64_t work);

// The exception of the first task, in order of tasks, that threw one.
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
void parallel_tasks(const Threads& threads, int64_t count, int64_t work, const F& f) {
  const int64_t workers = std::min(worthwhile_threads(threads, work), count);
  if (workers <= 1) {
    if (count > 0) f(0, count);
    return;
  }
  const int64_t step = std::max<int64_t>(1, count / (workers * 16));
  std::atomic<int64_t> next{0};
  FirstException first;
  const auto body = [&] {
    for (;;) {
      const int64_t begin = next.fetch_add(step, std::memory_order_relaxed);
      if (begin >= count) return;
      try {
        f(begin, std::min(begin + step, count));
      } catch (...) {
        first.keep(begin, std::current_exception());
      }
    }
  };
  threads.run(workers, std::ref(body));
  first.rethrow();
}

// Calls f(begin, end) on the rows [0, rows) of a table cut into one range a thread, of about equal
// work: where each call reads all positions, which more ranges would multiply. row_of(position):
// the row that it looks up, of `count`; row_work as in share_rows().
template <class RowOf, class F>
void parallel_rows(const Threads& threads, int64_t rows, int64_t count, int64_t work,
                   double row_work, const RowOf& row_of, const F& f) {
  const int64_t shares = worthwhile_threads(threads, work);
  std::vector<int64_t> sample(static_cast<size_t>(shares == 1 ? 0 : std::min(count, kSampledRows)));
  const auto sampled = static_cast<double>(sample.size());
  for (size_t i = 0; i < sample.size(); ++i) {
    const double at = static_cast<double>(i) / sampled * static_cast<double>(count);
    sample[i] = row_of(static_cast<int64_t>(at));
  }
  const std::vector<int64_t> begins = share_rows(std::move(sample), count, rows, row_work, shares);
  parallel_tasks(threads, shares, work, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) f(begins[share], begins[share + 1]);
  });
}

// parallel_tasks over single elements, in ranges that are worth a call.
template <class F>
void parallel_elements(const Threads& threads, int64_t count, const F& f) {
  constexpr int64_t kStep = 4096;
  parallel_tasks(threads, (count + kStep - 1) / kStep, count * 16, [&](int64_t begin, int64_t end) {
    f(begin * kStep, std::min(end * kStep, count));
  });
}

}  // namespace longclock
