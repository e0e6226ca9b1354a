// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace longclock {

// Threads that `work` (about one an element read) is worth: PyTorch's, at most; 1 in a forked
// child, whose OpenMP workers did not survive the fork.
int64_t worthwhile_threads(int64_t work);

// Calls f(begin, end) until [0, count) is done, ranges handed to whichever thread is free. f's
// results must not depend on how the range is cut.
template <class F>
void parallel_tasks(int64_t count, int64_t work, const F& f) {
  const int64_t threads = std::min(worthwhile_threads(work), count);
  if (threads <= 1) {
    if (count > 0) f(0, count);
    return;
  }
  const int64_t step = std::max<int64_t>(1, count / (threads * 16));
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (;;) {
      const int64_t begin = next.fetch_add(step, std::memory_order_relaxed);
      if (begin >= count) return;
      f(begin, std::min(begin + step, count));
    }
  });
}

}  // namespace longclock
