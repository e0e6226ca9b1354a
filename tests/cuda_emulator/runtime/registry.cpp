// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "../emulator.h"

namespace longclock::emulator {

Registry& registry() {
  static Registry& made = *new Registry;
  return made;
}

// The container is read now, its text when a kernel of it is wanted.
Fatbin* Registry::add_fatbin(const void* wrapper) {
  const std::lock_guard lock(mutex);
  Fatbin& fatbin = *fatbins_.emplace_back(std::make_unique<Fatbin>());
  fatbin.wrapper = wrapper;
  try {
    fatbin.entries = ptx::read_fatbin(wrapper);
  } catch (const std::runtime_error& error) {
    fatbin.error =
        error.what();  // told at the first launch: nothing may throw out of a constructor
  }
  return &fatbin;
}

void Registry::remove_fatbin(Fatbin* fatbin) {
  const std::lock_guard lock(mutex);
  std::erase_if(kernels, [&](const auto& entry) { return entry.second.fatbin == fatbin; });
  std::erase_if(symbols, [&](const auto& entry) { return entry.second.fatbin == fatbin; });
  for (const auto& [name, allocation] : fatbin->variables) {
    memory_map().release(reinterpret_cast<const void*>(allocation->begin));
  }
  std::erase_if(fatbins_, [&](const auto& entry) { return entry.get() == fatbin; });
}

// The newest PTX that the device may run.
LoadedModule* Registry::module_of(Fatbin& fatbin) {
  if (!fatbin.error.empty()) throw std::runtime_error(fatbin.error);
  const ptx::FatbinEntry* best = nullptr;
  for (const ptx::FatbinEntry& entry : fatbin.entries) {
    if (entry.is_ptx && entry.arch <= options().sm && (best == nullptr || entry.arch > best->arch))
      best = &entry;
  }
  if (best == nullptr) return nullptr;
  LoadedModule& loaded = fatbin.modules[best->arch];
  if (!loaded.module) {
    loaded.module = ptx::parse(best->ptx);
    allocate_variables(fatbin, *loaded.module);
  }
  return &loaded;
}

void Registry::allocate_variables(Fatbin& fatbin, const ptx::Module& module) {
  std::vector<const ptx::Variable*> fresh;
  for (const ptx::Variable& variable : module.variables) {
    const bool constant = variable.space == ptx::Space::constant;
    if ((variable.space != ptx::Space::global && !constant) ||
        fatbin.variables.contains(variable.name))
      continue;
    std::string name(variable.name);
    Allocation* made =
        memory_map().allocate(std::max<uint64_t>(variable.bytes, 1),
                              constant ? MemoryKind::constant : MemoryKind::variable, name);
    if (made == nullptr) throw std::runtime_error("no memory for variable " + name);
    auto* data = reinterpret_cast<std::byte*>(made->begin);
    std::memset(data, 0, made->bytes);
    if (!variable.initial.empty())
      std::memcpy(data, variable.initial.data(), variable.initial.size());
    memory_map().define(data, made->bytes);
    made->read_only = constant;
    fatbin.variables.emplace(std::move(name), made);
    fresh.push_back(&variable);
  }
  for (const ptx::Variable* variable : fresh) {
    for (const ptx::Relocation& relocation : variable->relocations) {
      uint64_t value = static_cast<uint64_t>(relocation.offset);
      if (const auto found = fatbin.variables.find(relocation.symbol);
          found != fatbin.variables.end()) {
        value += found->second->begin;
      } else if (const ptx::Function* function = module.find_function(relocation.symbol)) {
        value += function_address(static_cast<uint64_t>(function - module.functions.data()));
      }
      std::memcpy(
          reinterpret_cast<std::byte*>(fatbin.variables.find(variable->name)->second->begin) +
              relocation.at,
          &value, relocation.bytes);
    }
  }
}

LoadedKernel Registry::load(const void* stub) {
  const std::lock_guard lock(mutex);
  LoadedKernel out;
  const auto found = kernels.find(stub);
  if (found == kernels.end()) return out;
  out.kernel = &found->second;
  Fatbin& fatbin = *out.kernel->fatbin;
  LoadedModule* loaded = module_of(fatbin);
  if (loaded == nullptr) return out;
  out.ptx_arch = loaded->module->target;
  out.function = loaded->module->find_function(out.kernel->name);
  if (out.function == nullptr) return out;
  std::shared_ptr<const Program>& program = loaded->programs[out.kernel->name];
  if (!program) {
    program = decode_kernel(*loaded->module, *out.function, [&](std::string_view name) {
      const auto at = fatbin.variables.find(name);
      if (at == fatbin.variables.end())
        throw std::runtime_error("no variable " + std::string(name));
      return at->second->begin;
    });
  }
  out.program = program.get();
  int nearest = 1 << 20;
  for (const ptx::FatbinEntry& entry : fatbin.entries) {
    const auto kernel = entry.kernels.find(out.kernel->name);
    if (kernel == entry.kernels.end() || std::abs(entry.arch - options().sm) >= nearest) continue;
    nearest = std::abs(entry.arch - options().sm);
    out.registers = kernel->second.registers;
  }
  return out;
}

Allocation* Registry::variable(const void* shadow) {
  const std::lock_guard lock(mutex);
  const auto found = symbols.find(shadow);
  if (found == symbols.end() || module_of(*found->second.fatbin) == nullptr) return nullptr;
  const auto at = found->second.fatbin->variables.find(found->second.name);
  return at == found->second.fatbin->variables.end() ? nullptr : at->second;
}

void Registry::init_managed(Fatbin* fatbin) {
  const std::lock_guard lock(mutex);
  for (const auto& [shadow, symbol] : symbols) {
    if (symbol.fatbin != fatbin || symbol.managed == nullptr || *symbol.managed != nullptr)
      continue;
    if (Allocation* found = variable(shadow))
      *symbol.managed = reinterpret_cast<void*>(found->begin);
  }
}

}  // namespace longclock::emulator
