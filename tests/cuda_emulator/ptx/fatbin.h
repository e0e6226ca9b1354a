// SPDX-License-Identifier: Apache-2.0
// The container that nvcc puts into objects: PTX as text, and cubins, of which the emulator reads
// what ptxas decided (registers and local bytes of each kernel), never the code.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace longclock::emulator::ptx {

struct KernelResources {
  uint32_t registers = 0;  // a thread
};

struct FatbinEntry {
  bool is_ptx = false;  // else a cubin
  int arch = 0;         // 80
  std::string ptx;
  std::map<std::string, KernelResources> kernels;  // of a cubin, by mangled name
};

// `wrapper`: what __cudaRegisterFatBinary is given. Throws std::runtime_error with the remedy where
// the text is compressed (-no-compress).
std::vector<FatbinEntry> read_fatbin(const void* wrapper);

}  // namespace longclock::emulator::ptx
