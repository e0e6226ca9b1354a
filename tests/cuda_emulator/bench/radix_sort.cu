// SPDX-License-Identifier: Apache-2.0
// Lane-instructions a second of one core on cub::DeviceRadixSort, without checks and with more and
// more of them: radix_sort [KEYS]. The best of three runs each.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cub/device/device_radix_sort.cuh>
#include <string>

#include "../counters/counters.h"
#include "../tests/device_vector.h"

namespace longclock::emulator {
namespace {

double lane_instructions(const std::string& json) {
  const std::string key = "\"lane_instructions\":{";
  double sum = 0;
  for (size_t at = json.find(key); at != std::string::npos; at = json.find(key, at)) {
    const size_t end = json.find('}', at);
    for (at = json.find(':', at + key.size()); at < end; at = json.find(':', at + 1))
      sum += std::atof(json.c_str() + at + 1);
    at = end;
  }
  return sum;
}

void run(int size) {
  const DeviceVector<uint32_t> in(random_values<uint32_t>(static_cast<size_t>(size), 1)),
      out(in.size());
  const auto sort = [&] {
    const auto begin = std::chrono::steady_clock::now();
    with_workspace([&](void* workspace, size_t& bytes) {
      return cub::DeviceRadixSort::SortKeys(workspace, bytes, in.data(), out.data(), size);
    });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  options().threads = 1;
  options().counters = true;
  take_counters_json();
  sort();
  const double lanes = lane_instructions(take_counters_json());
  std::printf("%d keys, %.0f million lane-instructions\n", size, lanes / 1e6);
  struct Mode {
    const char* name;
    uint32_t checks;
    bool counters;
  };
  constexpr Mode kModes[] = {
      {"no checks", 0, false},
      {"bounds", kCheckBounds, false},
      {"bounds, initialised", kCheckBounds | kCheckInitialised, false},
      {"bounds, races", kCheckBounds | kCheckRaces, false},
      {"all checks", kCheckAll, false},
      {"all checks, counters", kCheckAll, true},
  };
  for (const Mode& mode : kModes) {
    options().checks = mode.checks;
    options().counters = mode.counters;
    double best = 1e30;
    for (int i = 0; i < 3; ++i) best = std::min(best, sort());
    std::printf("%-22s %7.0f million a second\n", mode.name, lanes / best / 1e6);
  }
}

}  // namespace
}  // namespace longclock::emulator

int main(int argc, char** argv) {
  longclock::emulator::run(argc > 1 ? std::atoi(argv[1]) : 2'000'000);
  return 0;
}
