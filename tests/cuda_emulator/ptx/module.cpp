// SPDX-License-Identifier: Apache-2.0
#include "module.h"

namespace longclock::emulator::ptx {

const Function* Module::find_function(std::string_view name) const {
  for (const Function& f : functions) {
    if (f.name == name) return &f;
  }
  return nullptr;
}

const Variable* Module::find_variable(std::string_view name) const {
  for (const Variable& v : variables) {
    if (v.name == name) return &v;
  }
  return nullptr;
}

}  // namespace longclock::emulator::ptx
