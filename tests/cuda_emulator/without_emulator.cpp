// SPDX-License-Identifier: Apache-2.0
// emulator.h where another library provides the CUDA runtime (LONGCLOCK_CUDA_RUNTIME): options
// change nothing, and there is nothing to report.
#include "emulator.h"

namespace longclock::emulator {

Options& options() {
  static Options unused;
  return unused;
}
std::string Report::text() const { return message; }
std::vector<Report> take_reports() { return {}; }
std::vector<Report> find_leaks() { return {}; }
void declare_memory(const void*, uint64_t, bool, bool) {}
void forget_memory(const void*) {}
std::string take_counters_json() { return "[]"; }

}  // namespace longclock::emulator

const char* longclock_emulator_take_reports() { return "[]"; }
const char* longclock_emulator_take_counters() { return "[]"; }
int longclock_emulator_set(const char*, const char*) { return 1; }
const char* longclock_emulator_get(const char*) { return ""; }
void longclock_emulator_declare_memory(const void*, uint64_t, int, int) {}
void longclock_emulator_forget_memory(const void*) {}
