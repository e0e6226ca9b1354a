// SPDX-License-Identifier: Apache-2.0
#include "common/parallel.h"

#include <torch/csrc/stable/ops.h>

#include "longclock/common/fork.h"

namespace longclock {

Threads torch_threads() {
  if (in_forked_child()) return {1, nullptr};
  return {torch::stable::get_num_threads(), [](int64_t count, const std::function<void()>& body) {
            torch::stable::parallel_for(0, count, 1, [&](int64_t, int64_t) { body(); });
          }};
}

}  // namespace longclock
