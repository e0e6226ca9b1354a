// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

namespace longclock::emulator {

// Calls work(worker) on `workers` threads, of which the caller is the first, and returns when all
// are done. The threads are kept for the next call.
void run_on_workers(unsigned workers, const std::function<void(unsigned)>& work);

}  // namespace longclock::emulator
