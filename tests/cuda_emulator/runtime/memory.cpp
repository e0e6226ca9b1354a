// SPDX-License-Identifier: Apache-2.0
// Memory of the device is memory of the host, at the same address. Copies are done at once; a range
// that leaves its allocation is refused before a byte moves.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "../checks/report.h"
#include "../emulator.h"
#include "../memory/memory_map.h"
#include "capture.h"
#include "errors.h"
#include "registry.h"

namespace longclock::emulator {
namespace {

constexpr uint64_t kTotalMemory = uint64_t{16} << 30;

// At the end of the process, after static destructors that were registered since the first call.
void report_leaks_at_exit() {
  if ((options().checks & kCheckLeaks) == 0) return;
  find_leaks();
}

cudaError_t allocate(void** out, size_t bytes, MemoryKind kind) {
  static const int registered = std::atexit(report_leaks_at_exit);
  static_cast<void>(registered);
  if (out == nullptr) return fail(cudaErrorInvalidValue);
  *out = nullptr;
  if (bytes == 0) return cudaSuccess;
  const Allocation* made = bytes > kTotalMemory ? nullptr : memory_map().allocate(bytes, kind);
  if (made == nullptr) return fail(cudaErrorMemoryAllocation);
  *out = reinterpret_cast<void*>(made->begin);
  return cudaSuccess;
}

cudaError_t release(void* pointer) {
  if (pointer == nullptr || memory_map().release(pointer)) return cudaSuccess;
  return fail(cudaErrorInvalidValue);
}

// Memory that CUDA did not make is the host's own and unknown.
bool fits(const void* pointer, uint64_t bytes) {
  const auto address = reinterpret_cast<uint64_t>(pointer);
  const Allocation* found = memory_map().find(address);
  return found == nullptr || !found->contains(address, 1) ||
         (!found->freed && found->contains(address, bytes));
}

cudaError_t copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  if (to == nullptr || from == nullptr || !fits(to, bytes) || !fits(from, bytes))
    return fail(cudaErrorInvalidValue);
  std::memmove(to, from, bytes);
  memory_map().copy_state(to, from, bytes);
  return cudaSuccess;
}

cudaError_t fill(void* to, int value, size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  if (to == nullptr || !fits(to, bytes)) return fail(cudaErrorInvalidValue);
  std::memset(to, value, bytes);
  memory_map().define(to, bytes);
  return cudaSuccess;
}

cudaError_t copy_rows(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                      size_t height) {
  for (size_t row = 0; row < height; ++row) {
    const cudaError_t error = copy(static_cast<char*>(to) + row * to_pitch,
                                   static_cast<const char*>(from) + row * from_pitch, width);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t fill_rows(void* to, size_t pitch, int value, size_t width, size_t height) {
  for (size_t row = 0; row < height; ++row) {
    const cudaError_t error = fill(static_cast<char*>(to) + row * pitch, value, width);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t symbol(const void* shadow, Allocation** out) {
  try {
    *out = registry().variable(shadow);
  } catch (const std::exception& problem) {
    return fail(cudaErrorInvalidPtx, problem.what());
  }
  return *out == nullptr ? fail(cudaErrorInvalidSymbol) : cudaSuccess;
}

cudaError_t copy_to_symbol(const void* shadow, const void* from, size_t bytes, size_t offset) {
  Allocation* found = nullptr;
  const cudaError_t error = symbol(shadow, &found);
  return error != cudaSuccess ? error
                              : copy(reinterpret_cast<char*>(found->begin) + offset, from, bytes);
}

cudaError_t copy_from_symbol(void* to, const void* shadow, size_t bytes, size_t offset) {
  Allocation* found = nullptr;
  const cudaError_t error = symbol(shadow, &found);
  return error != cudaSuccess ? error
                              : copy(to, reinterpret_cast<char*>(found->begin) + offset, bytes);
}

}  // namespace

std::vector<Report> find_leaks() {
  std::vector<Report> out;
  for (const Allocation* allocation : memory_map().live(MemoryKind::device)) {
    Report& report = out.emplace_back();
    report.kind = "leak";
    report.message = std::to_string(allocation->bytes) + " bytes of device memory were never freed";
    report.address = allocation->begin;
    add_report(report);
  }
  return out;
}

}  // namespace longclock::emulator

using namespace longclock::emulator;

extern "C" {

cudaError_t cudaMalloc(void** out, size_t bytes) {
  if (const cudaError_t error = refuse_while_capturing("cudaMalloc")) return error;
  return allocate(out, bytes, MemoryKind::device);
}
cudaError_t cudaMallocAsync(void** out, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMallocAsync", stream)) return error;
  return allocate(out, bytes, MemoryKind::device);
}
cudaError_t cudaMallocFromPoolAsync(void** out, size_t bytes, cudaMemPool_t, cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMallocFromPoolAsync", stream)) return error;
  return allocate(out, bytes, MemoryKind::device);
}
cudaError_t cudaMallocManaged(void** out, size_t bytes, unsigned) {
  if (const cudaError_t error = refuse_while_capturing("cudaMallocManaged")) return error;
  return allocate(out, bytes, MemoryKind::managed);
}
cudaError_t cudaMallocHost(void** out, size_t bytes) {
  if (const cudaError_t error = refuse_while_capturing("cudaMallocHost")) return error;
  return allocate(out, bytes, MemoryKind::pinned);
}
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  if (const cudaError_t error = refuse_while_capturing("cudaHostAlloc")) return error;
  return allocate(out, bytes, MemoryKind::pinned);
}
cudaError_t cudaMallocPitch(void** out, size_t* pitch, size_t width, size_t height) {
  if (const cudaError_t error = refuse_while_capturing("cudaMallocPitch")) return error;
  *pitch = (width + 511) / 512 * 512;
  return allocate(out, *pitch * height, MemoryKind::device);
}
cudaError_t cudaFree(void* pointer) {
  if (const cudaError_t error = refuse_while_capturing("cudaFree")) return error;
  return release(pointer);
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaFreeAsync", stream)) return error;
  return release(pointer);
}
cudaError_t cudaFreeHost(void* pointer) {
  if (const cudaError_t error = refuse_while_capturing("cudaFreeHost")) return error;
  return release(pointer);
}
cudaError_t cudaHostGetDevicePointer(void** out, void* pointer, unsigned) {
  *out = pointer;
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (const cudaError_t error = refuse_while_capturing("cudaMemcpy")) return error;
  return copy(to, from, bytes);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMemcpyAsync", stream, kind)) return error;
  return copy(to, from, bytes);
}
cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t bytes) {
  if (const cudaError_t error = refuse_while_capturing("cudaMemcpyPeer")) return error;
  return copy(to, from, bytes);
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMemcpyPeerAsync", stream)) return error;
  return copy(to, from, bytes);
}
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind) {
  if (const cudaError_t error = refuse_while_capturing("cudaMemcpy2D")) return error;
  return copy_rows(to, to_pitch, from, from_pitch, width, height);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMemcpy2DAsync", stream, kind)) return error;
  return copy_rows(to, to_pitch, from, from_pitch, width, height);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (const cudaError_t error = refuse_while_capturing("cudaMemset")) return error;
  return fill(to, value, bytes);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMemsetAsync", stream)) return error;
  return fill(to, value, bytes);
}
cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  if (const cudaError_t error = refuse_while_capturing("cudaMemset2D")) return error;
  return fill_rows(to, pitch, value, width, height);
}
cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMemset2DAsync", stream)) return error;
  return fill_rows(to, pitch, value, width, height);
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *total = kTotalMemory;
  *free_bytes = kTotalMemory - std::min<uint64_t>(kTotalMemory, memory_map().bytes_in_use());
  return cudaSuccess;
}
cudaError_t cudaMemPrefetchAsync(const void*, size_t, cudaMemLocation, unsigned, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, cudaMemLocation) {
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* pointer) {
  *out = {};
  const auto address = reinterpret_cast<uint64_t>(pointer);
  const Allocation* found = memory_map().find(address);
  const bool known = found != nullptr && found->contains(address, 1) && !found->freed;
  out->type = !known                               ? cudaMemoryTypeUnregistered
              : found->kind == MemoryKind::managed ? cudaMemoryTypeManaged
              : found->kind == MemoryKind::pinned  ? cudaMemoryTypeHost
                                                   : cudaMemoryTypeDevice;
  if (known) out->devicePointer = const_cast<void*>(pointer);
  if (known && out->type != cudaMemoryTypeDevice) out->hostPointer = const_cast<void*>(pointer);
  return cudaSuccess;
}

cudaError_t cudaGetSymbolAddress(void** out, const void* shadow) {
  Allocation* found = nullptr;
  const cudaError_t error = symbol(shadow, &found);
  if (error == cudaSuccess) *out = reinterpret_cast<void*>(found->begin);
  return error;
}
cudaError_t cudaGetSymbolSize(size_t* out, const void* shadow) {
  Allocation* found = nullptr;
  const cudaError_t error = symbol(shadow, &found);
  if (error == cudaSuccess) *out = found->bytes;
  return error;
}
cudaError_t cudaMemcpyToSymbol(const void* shadow, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind) {
  if (const cudaError_t error = refuse_while_capturing("cudaMemcpyToSymbol")) return error;
  return copy_to_symbol(shadow, from, bytes, offset);
}
cudaError_t cudaMemcpyFromSymbol(void* to, const void* shadow, size_t bytes, size_t offset,
                                 cudaMemcpyKind) {
  if (const cudaError_t error = refuse_while_capturing("cudaMemcpyFromSymbol")) return error;
  return copy_from_symbol(to, shadow, bytes, offset);
}
cudaError_t cudaMemcpyToSymbolAsync(const void* shadow, const void* from, size_t bytes,
                                    size_t offset, cudaMemcpyKind kind, cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMemcpyToSymbolAsync", stream, kind))
    return error;
  return copy_to_symbol(shadow, from, bytes, offset);
}
cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* shadow, size_t bytes, size_t offset,
                                      cudaMemcpyKind kind, cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaMemcpyFromSymbolAsync", stream, kind))
    return error;
  return copy_from_symbol(to, shadow, bytes, offset);
}

// Pools hold nothing back: what is freed is gone.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
  return cudaDeviceGetDefaultMemPool(pool, device);
}
cudaError_t cudaDeviceSetMemPool(int, cudaMemPool_t) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  *static_cast<uint64_t*>(value) = 0;
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

}  // extern "C"
