// SPDX-License-Identifier: Apache-2.0
#include "common/parallel.h"

#include "common/fork.h"

namespace longclock {
namespace {

constexpr int64_t kWorkPerThread = 32768;

}  // namespace

int64_t worthwhile_threads(int64_t work) {
  if (in_forked_child()) return 1;
  return std::clamp<int64_t>(work / kWorkPerThread, 1, torch::stable::get_num_threads());
}

}  // namespace longclock
