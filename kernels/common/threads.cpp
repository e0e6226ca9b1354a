// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/threads.h"

#include <system_error>
#include <thread>

namespace longclock {
namespace {

constexpr int64_t kWorkPerThread = 32768;

}  // namespace

void run_on_std_threads(int64_t count, const std::function<void()>& body) {
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(std::max<int64_t>(count - 1, 0)));
  try {
    while (static_cast<int64_t>(others.size()) < count - 1) others.emplace_back(std::cref(body));
  } catch (const std::system_error&) {
    // The system grants no more: those that there are do the work.
  }
  body();
  for (std::thread& other : others) other.join();
}

int64_t worthwhile_threads(const Threads& threads, int64_t work) {
  return std::clamp<int64_t>(work / kWorkPerThread, 1, std::max<int64_t>(threads.count, 1));
}

}  // namespace longclock
