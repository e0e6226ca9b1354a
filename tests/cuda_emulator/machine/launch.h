// SPDX-License-Identifier: Apache-2.0
// The seam between runtime/ and machine/: a kernel is decoded once and run many times.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "../ptx/module.h"

namespace longclock::emulator {

struct Program;  // machine/program.h

// Host address of a variable of the module (__device__, __constant__), which the runtime allocated.
using AddressOf = std::function<uint64_t(std::string_view name)>;

// The address of a function, as kernels see it: meaningful to calls only, the same in every kernel
// of the module. `index`: of Module::functions.
constexpr uint64_t kFunctionAddress = 0x0f17c00000000000;
constexpr uint64_t function_address(uint64_t index) { return kFunctionAddress + 16 * index; }

// What follows from the PTX alone.
struct KernelFacts {
  uint64_t static_shared = 0;  // bytes
  uint64_t local_bytes = 0;    // a thread
  uint64_t parameter_bytes = 0;
  uint32_t parameter_count = 0;
};

struct LaunchConfig {
  uint32_t grid[3] = {1, 1, 1};
  uint32_t block[3] = {1, 1, 1};
  uint32_t dynamic_shared = 0;
  bool cooperative = false;
  void** arguments = nullptr;  // one pointer a parameter
};

// Throws std::runtime_error where the PTX cannot be decoded at all; an instruction that is unknown
// raises a report when it is reached.
std::shared_ptr<const Program> decode_kernel(const ptx::Module& module, const ptx::Function& kernel,
                                             const AddressOf& address_of);
const KernelFacts& kernel_facts(const Program& program);

// Runs a grid to its end on the calling thread and its workers. Limits of the device were checked.
// Returns a cudaError_t: 0, or that of the first fault.
int run_kernel(const Program& program, const LaunchConfig& config);

}  // namespace longclock::emulator
