// SPDX-License-Identifier: Apache-2.0
// What static constructors of nvcc's objects call.
#include <cuda_runtime_api.h>

#include "registry.h"

using namespace longclock::emulator;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(registry().add_fatbin(wrapper));
}

void __cudaRegisterFatBinaryEnd(void**) {}

void __cudaUnregisterFatBinary(void** handle) {
  registry().remove_fatbin(reinterpret_cast<Fatbin*>(handle));
}

void __cudaRegisterFunction(void** handle, const char* stub, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  const std::lock_guard lock(registry().mutex);
  registry().kernels[stub] = {reinterpret_cast<Fatbin*>(handle), name, {}};
}

void __cudaRegisterVar(void** handle, char* shadow, char*, const char* name, int, size_t bytes, int,
                       int) {
  const std::lock_guard lock(registry().mutex);
  registry().symbols[shadow] = {reinterpret_cast<Fatbin*>(handle), name, bytes, nullptr};
}

void __cudaRegisterManagedVar(void** handle, void** shadow, char*, const char* name, int,
                              size_t bytes, int, int) {
  const std::lock_guard lock(registry().mutex);
  registry().symbols[shadow] = {reinterpret_cast<Fatbin*>(handle), name, bytes, shadow};
}

// Called before the first use of a managed variable.
char __cudaInitModule(void** handle) {
  try {
    registry().init_managed(reinterpret_cast<Fatbin*>(handle));
  } catch (const std::exception&) {
    return 0;  // told again by the launch that needs it
  }
  return 1;
}

}  // extern "C"
