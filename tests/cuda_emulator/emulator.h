// SPDX-License-Identifier: Apache-2.0
// What a test says to the emulator and what it learns from it. Kernels themselves are launched
// through the CUDA runtime API, which the library implements.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct CUstream_st;

namespace longclock::emulator {

enum Check : uint32_t {
  kCheckBounds = 1,       // out of bounds, freed, const, misaligned
  kCheckInitialised = 2,  // use of a value that nobody wrote
  kCheckRaces = 4,        // within a block and between blocks, cp.async before its wait
  kCheckSync = 8,         // divergent or mismatched barriers, lanes missing from a mask
  kCheckLeaks = 16,       // at the end of the process
  kCheckAll = 31,
};

// Defaults come from LONGCLOCK_EMULATOR_SM, _CHECKS (all, none, or names joined by commas: bounds,
// initialised, races, sync, leaks), _COUNTERS (0 or 1), _SEED and _THREADS.
struct Options {
  int sm = 80;                  // 75, 80, 86, 89, 90, 100 or 120
  uint32_t checks = kCheckAll;  // of Check
  bool counters = false;
  uint64_t seed = 0;             // of the order of blocks and warps
  unsigned threads = 0;          // of the host; 0: one a core
  bool print = true;             // reports go to stderr as they come
  unsigned blocks = 0x7fffffff;  // of a grid, along x: fewer than a device's to see portions
  unsigned multiprocessors = 0;  // of the device; 0: as the profile says
  bool capturing = false;        // refuse what a stream capture would, and name it
};
Options& options();

// The stream of the ops, which is none of the default ones.
CUstream_st* launch_stream();

// One fault. A fault that repeats at the same instruction with the same kind is counted, not
// repeated.
struct Report {
  std::string kind;     // "out of bounds", "race", ...; see README.md
  std::string message;  // one line: what happened
  std::string kernel;   // demangled
  std::string file;     // of the innermost source line; empty without -lineinfo
  uint32_t line = 0;
  std::vector<std::string> inlined_at;  // "file:line", outwards
  std::string instruction;              // PTX
  uint32_t block[3] = {0, 0, 0};
  uint32_t thread[3] = {0, 0, 0};
  uint64_t address = 0;      // 0 where there is none
  uint64_t count = 1;        // of lanes
  std::string text() const;  // several lines, as printed
};
std::vector<Report> take_reports();
// Device memory that was allocated and not freed: adds a report for each.
std::vector<Report> find_leaks();

// Host memory that kernels may use: a tensor's. Launches see nothing else but CUDA allocations.
// Declaring a range again replaces it. `undefined`: its present content counts as never written.
void declare_memory(const void* address, uint64_t bytes, bool read_only, bool undefined);
void forget_memory(const void* address);

struct LaunchCounters;             // counters/counters.h
std::string take_counters_json();  // of the launches since the last call: a JSON array

}  // namespace longclock::emulator

// The same for Python's ctypes. Strings stay valid until the thread's next call.
extern "C" {
#pragma GCC visibility push(default)
const char* longclock_emulator_take_reports();   // a JSON array
const char* longclock_emulator_take_counters();  // a JSON array, one object a launch
// A JSON array, one [op, argument, ...] a call since the last time: whose device was compared.
const char* longclock_emulator_take_checked();
// key: sm, checks, counters, seed, threads, print, blocks,
// multiprocessors, capturing. Returns 0, or 1 for an
// unknown key or value.
int longclock_emulator_set(const char* key, const char* value);
const char* longclock_emulator_get(const char* key);
void longclock_emulator_declare_memory(const void* address, uint64_t bytes, int read_only,
                                       int undefined);
void longclock_emulator_forget_memory(const void* address);
#pragma GCC visibility pop
}
