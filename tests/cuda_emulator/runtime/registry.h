// SPDX-License-Identifier: Apache-2.0
// What the objects of the program registered: fatbins, kernels and variables.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "../machine/launch.h"
#include "../memory/memory_map.h"
#include "../ptx/fatbin.h"
#include "../ptx/module.h"

namespace longclock::emulator {

// The PTX of one fatbin for one architecture, parsed at its first use.
struct LoadedModule {
  std::unique_ptr<ptx::Module> module;
  std::map<std::string, std::shared_ptr<const Program>, std::less<>> programs;
};

struct Fatbin {
  const void* wrapper = nullptr;
  std::string error;  // why it cannot be read
  std::vector<ptx::FatbinEntry> entries;
  std::map<int, LoadedModule> modules;                        // by architecture
  std::map<std::string, Allocation*, std::less<>> variables;  // of all of them: one memory
};

struct Kernel {
  Fatbin* fatbin = nullptr;
  std::string name;
  std::map<int, uint32_t> opt_in_shared;  // cudaFuncAttributeMaxDynamicSharedMemorySize, by sm
};

struct Symbol {
  Fatbin* fatbin = nullptr;
  std::string name;
  uint64_t bytes = 0;
  void** managed = nullptr;  // the host's pointer to a managed variable
};

// What a launch or a query of attributes needs of a kernel.
struct LoadedKernel {
  Kernel* kernel = nullptr;
  const Program* program = nullptr;
  const ptx::Function* function = nullptr;
  int ptx_arch = 0;
  uint32_t registers = 0;  // a thread, of the nearest cubin; 0: unknown
};

class Registry {
 public:
  std::recursive_mutex mutex;
  std::unordered_map<const void*, Kernel> kernels;  // by host stub
  std::unordered_map<const void*, Symbol> symbols;  // by host shadow

  Fatbin* add_fatbin(const void* wrapper);
  void remove_fatbin(Fatbin* fatbin);
  // Throws std::runtime_error with the reason; nullptr program: no PTX for this device or no such
  // kernel.
  LoadedKernel load(const void* stub);
  Allocation* variable(const void* shadow);  // nullptr: not registered
  void init_managed(Fatbin* fatbin);

 private:
  LoadedModule* module_of(Fatbin& fatbin);
  void allocate_variables(Fatbin& fatbin, const ptx::Module& module);
  std::vector<std::unique_ptr<Fatbin>> fatbins_;
};
Registry& registry();  // lives before and after every static constructor and destructor

}  // namespace longclock::emulator
