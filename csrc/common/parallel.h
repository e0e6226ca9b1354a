// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "longclock/common/row_shares.h"

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

// Calls f(begin, end) on the rows [0, rows) of a table cut into one range a thread, of about equal
// work: where each call reads all positions, which more ranges would multiply. row_of(position):
// the row that it looks up, of `count`; row_work as in share_rows().
template <class RowOf, class F>
void parallel_rows(int64_t rows, int64_t count, int64_t work, double row_work, const RowOf& row_of,
                   const F& f) {
  const int64_t shares = worthwhile_threads(work);
  std::vector<int64_t> sample(static_cast<size_t>(shares == 1 ? 0 : std::min(count, kSampledRows)));
  const auto sampled = static_cast<double>(sample.size());
  for (size_t i = 0; i < sample.size(); ++i) {
    const double at = static_cast<double>(i) / sampled * static_cast<double>(count);
    sample[i] = row_of(static_cast<int64_t>(at));
  }
  const std::vector<int64_t> begins = share_rows(std::move(sample), count, rows, row_work, shares);
  parallel_tasks(shares, work, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) f(begins[share], begins[share + 1]);
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
