// SPDX-License-Identifier: Apache-2.0
#include "parallel.h"

#include <pthread.h>

namespace longclock {
namespace {

constexpr int64_t kWorkPerThread = 32768;

std::atomic<bool> forked{false};

const int registered =
    pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });

}  // namespace

int64_t worthwhile_threads(int64_t work) {
  if (forked.load(std::memory_order_relaxed) && registered == 0) return 1;
  return std::clamp<int64_t>(work / kWorkPerThread, 1, torch::stable::get_num_threads());
}

}  // namespace longclock
