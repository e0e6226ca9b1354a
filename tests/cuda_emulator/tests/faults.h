// SPDX-License-Identifier: Apache-2.0
// A corpus of faulty kernels. Each kernel is a template over bool: <true> has the fault, on the
// line that ends in "// fault: NAME", and must be reported with its kind and that line; <false> is
// its correct twin and must raise nothing.
#pragma once

#include <fstream>
#include <functional>
#include <string>

#include "device_vector.h"

namespace longclock::emulator {

struct FaultCase {
  const char* name;
  const char* kind;
  std::function<void(bool faulty)> launch;
  int error;  // of the launch, as cudaGetLastError gives it
};

inline void PrintTo(const FaultCase& c, std::ostream* out) { *out << c.name; }

// The line of the file that carries the mark of the fault.
inline uint32_t marked_line(const std::string& file, const std::string& name) {
  std::ifstream in(file);
  std::string text;
  const std::string mark = "// fault: " + name;
  for (uint32_t line = 1; std::getline(in, text); ++line) {
    if (text.size() >= mark.size() &&
        text.compare(text.size() - mark.size(), mark.size(), mark) == 0)
      return line;
  }
  return 0;
}

class FaultTest : public EmulatorTest, public testing::WithParamInterface<FaultCase> {
 protected:
  void check(const std::string& file) {
    options().print = false;
    const FaultCase& c = GetParam();
    for (const uint64_t seed : {0, 1}) {
      options().seed = seed;
      c.launch(false);
      EXPECT_EQ(cudaGetLastError(), cudaSuccess);
      for (const Report& report : take_reports()) ADD_FAILURE() << "the twin: " << report.text();

      c.launch(true);
      EXPECT_EQ(cudaGetLastError(), c.error);
      const std::vector<Report> reports = take_reports();
      const uint32_t line = marked_line(file, c.name);
      ASSERT_NE(line, 0u) << "no line is marked";
      bool found = false;
      std::string all;
      const std::string place = file.substr(file.rfind('/') + 1) + ":" + std::to_string(line);
      for (const Report& report : reports) {
        // The line itself, where it was inlined from, or the second place of two that disagree.
        found |=
            report.kind == c.kind && (report.text() + "\n").find(place + "\n") != std::string::npos;
        all += report.text() + "\n";
      }
      EXPECT_TRUE(found) << "expected " << c.kind << " at line " << line << ", got "
                         << reports.size() << " reports\n"
                         << all;
    }
  }
};

inline std::string fault_name_of(const testing::TestParamInfo<FaultCase>& info) {
  return info.param.name;
}

// Launches kernel<faulty> with the arguments, dynamic shared memory in bytes.
#define LAUNCH(kernel, grid, block, shared, ...)           \
  [&](bool faulty) {                                       \
    if (faulty) {                                          \
      kernel<true><<<grid, block, shared>>>(__VA_ARGS__);  \
    } else {                                               \
      kernel<false><<<grid, block, shared>>>(__VA_ARGS__); \
    }                                                      \
  }

// The same with an array of `size` elements of T, zeroed.
template <class T, class F>
auto with_zeros(size_t size, F f) {
  return [=](bool faulty) {
    const DeviceVector<T> data(std::vector<T>(size, T{}));
    f(faulty, data.data());
  };
}

}  // namespace longclock::emulator
