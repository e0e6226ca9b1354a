// SPDX-License-Identifier: Apache-2.0
// Work that is handed out to PyTorch's threads.
#pragma once

#include "longclock/common/threads.h"

namespace longclock {

// As many as PyTorch has; 1 in a forked child, whose OpenMP workers did not survive the fork.
Threads torch_threads();

inline int64_t worthwhile_threads(int64_t work) {
  return worthwhile_threads(torch_threads(), work);
}

template <class F>
void parallel_tasks(int64_t count, int64_t work, const F& f) {
  parallel_tasks(torch_threads(), count, work, f);
}

template <class RowOf, class F>
void parallel_rows(int64_t rows, int64_t count, int64_t work, double row_work, const RowOf& row_of,
                   const F& f) {
  parallel_rows(torch_threads(), rows, count, work, row_work, row_of, f);
}

template <class F>
void parallel_elements(int64_t count, const F& f) {
  parallel_elements(torch_threads(), count, f);
}

}  // namespace longclock
