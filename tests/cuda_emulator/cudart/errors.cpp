// SPDX-License-Identifier: Apache-2.0
#include "errors.h"

#include <cstdio>

namespace longclock::emulator {
namespace {

thread_local cudaError_t last = cudaSuccess;

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
#define LONGCLOCK_ERROR(name, text) {name, #name, text},
constexpr ErrorText kErrors[] = {
    // clang-format off
    LONGCLOCK_ERROR(cudaSuccess, "no error")
    LONGCLOCK_ERROR(cudaErrorInvalidValue, "invalid value")
    LONGCLOCK_ERROR(cudaErrorMemoryAllocation, "memory allocation")
    LONGCLOCK_ERROR(cudaErrorInitializationError, "initialization error")
    LONGCLOCK_ERROR(cudaErrorCudartUnloading, "cudart unloading")
    LONGCLOCK_ERROR(cudaErrorProfilerDisabled, "profiler disabled")
    LONGCLOCK_ERROR(cudaErrorProfilerNotInitialized, "profiler not initialized")
    LONGCLOCK_ERROR(cudaErrorProfilerAlreadyStarted, "profiler already started")
    LONGCLOCK_ERROR(cudaErrorProfilerAlreadyStopped, "profiler already stopped")
    LONGCLOCK_ERROR(cudaErrorInvalidConfiguration, "invalid configuration")
    LONGCLOCK_ERROR(cudaErrorInvalidPitchValue, "invalid pitch value")
    LONGCLOCK_ERROR(cudaErrorInvalidSymbol, "invalid symbol")
    LONGCLOCK_ERROR(cudaErrorInvalidHostPointer, "invalid host pointer")
    LONGCLOCK_ERROR(cudaErrorInvalidDevicePointer, "invalid device pointer")
    LONGCLOCK_ERROR(cudaErrorInvalidTexture, "invalid texture")
    LONGCLOCK_ERROR(cudaErrorInvalidTextureBinding, "invalid texture binding")
    LONGCLOCK_ERROR(cudaErrorInvalidChannelDescriptor, "invalid channel descriptor")
    LONGCLOCK_ERROR(cudaErrorInvalidMemcpyDirection, "invalid memcpy direction")
    LONGCLOCK_ERROR(cudaErrorAddressOfConstant, "address of constant")
    LONGCLOCK_ERROR(cudaErrorTextureFetchFailed, "texture fetch failed")
    LONGCLOCK_ERROR(cudaErrorTextureNotBound, "texture not bound")
    LONGCLOCK_ERROR(cudaErrorSynchronizationError, "synchronization error")
    LONGCLOCK_ERROR(cudaErrorInvalidFilterSetting, "invalid filter setting")
    LONGCLOCK_ERROR(cudaErrorInvalidNormSetting, "invalid norm setting")
    LONGCLOCK_ERROR(cudaErrorMixedDeviceExecution, "mixed device execution")
    LONGCLOCK_ERROR(cudaErrorNotYetImplemented, "not yet implemented")
    LONGCLOCK_ERROR(cudaErrorMemoryValueTooLarge, "memory value too large")
    LONGCLOCK_ERROR(cudaErrorStubLibrary, "stub library")
    LONGCLOCK_ERROR(cudaErrorInsufficientDriver, "insufficient driver")
    LONGCLOCK_ERROR(cudaErrorCallRequiresNewerDriver, "call requires newer driver")
    LONGCLOCK_ERROR(cudaErrorInvalidSurface, "invalid surface")
    LONGCLOCK_ERROR(cudaErrorDuplicateVariableName, "duplicate variable name")
    LONGCLOCK_ERROR(cudaErrorDuplicateTextureName, "duplicate texture name")
    LONGCLOCK_ERROR(cudaErrorDuplicateSurfaceName, "duplicate surface name")
    LONGCLOCK_ERROR(cudaErrorDevicesUnavailable, "devices unavailable")
    LONGCLOCK_ERROR(cudaErrorIncompatibleDriverContext, "incompatible driver context")
    LONGCLOCK_ERROR(cudaErrorMissingConfiguration, "missing configuration")
    LONGCLOCK_ERROR(cudaErrorPriorLaunchFailure, "prior launch failure")
    LONGCLOCK_ERROR(cudaErrorLaunchMaxDepthExceeded, "launch max depth exceeded")
    LONGCLOCK_ERROR(cudaErrorLaunchFileScopedTex, "launch file scoped tex")
    LONGCLOCK_ERROR(cudaErrorLaunchFileScopedSurf, "launch file scoped surf")
    LONGCLOCK_ERROR(cudaErrorSyncDepthExceeded, "sync depth exceeded")
    LONGCLOCK_ERROR(cudaErrorLaunchPendingCountExceeded, "launch pending count exceeded")
    LONGCLOCK_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function")
    LONGCLOCK_ERROR(cudaErrorNoDevice, "no device")
    LONGCLOCK_ERROR(cudaErrorInvalidDevice, "invalid device")
    LONGCLOCK_ERROR(cudaErrorDeviceNotLicensed, "device not licensed")
    LONGCLOCK_ERROR(cudaErrorSoftwareValidityNotEstablished, "software validity not established")
    LONGCLOCK_ERROR(cudaErrorStartupFailure, "startup failure")
    LONGCLOCK_ERROR(cudaErrorInvalidKernelImage, "invalid kernel image")
    LONGCLOCK_ERROR(cudaErrorDeviceUninitialized, "device uninitialized")
    LONGCLOCK_ERROR(cudaErrorMapBufferObjectFailed, "map buffer object failed")
    LONGCLOCK_ERROR(cudaErrorUnmapBufferObjectFailed, "unmap buffer object failed")
    LONGCLOCK_ERROR(cudaErrorArrayIsMapped, "array is mapped")
    LONGCLOCK_ERROR(cudaErrorAlreadyMapped, "already mapped")
    LONGCLOCK_ERROR(cudaErrorNoKernelImageForDevice, "no kernel image for device")
    LONGCLOCK_ERROR(cudaErrorAlreadyAcquired, "already acquired")
    LONGCLOCK_ERROR(cudaErrorNotMapped, "not mapped")
    LONGCLOCK_ERROR(cudaErrorNotMappedAsArray, "not mapped as array")
    LONGCLOCK_ERROR(cudaErrorNotMappedAsPointer, "not mapped as pointer")
    LONGCLOCK_ERROR(cudaErrorECCUncorrectable, "eccuncorrectable")
    LONGCLOCK_ERROR(cudaErrorUnsupportedLimit, "unsupported limit")
    LONGCLOCK_ERROR(cudaErrorDeviceAlreadyInUse, "device already in use")
    LONGCLOCK_ERROR(cudaErrorPeerAccessUnsupported, "peer access unsupported")
    LONGCLOCK_ERROR(cudaErrorInvalidPtx, "invalid ptx")
    LONGCLOCK_ERROR(cudaErrorInvalidGraphicsContext, "invalid graphics context")
    LONGCLOCK_ERROR(cudaErrorNvlinkUncorrectable, "nvlink uncorrectable")
    LONGCLOCK_ERROR(cudaErrorJitCompilerNotFound, "jit compiler not found")
    LONGCLOCK_ERROR(cudaErrorUnsupportedPtxVersion, "unsupported ptx version")
    LONGCLOCK_ERROR(cudaErrorJitCompilationDisabled, "jit compilation disabled")
    LONGCLOCK_ERROR(cudaErrorUnsupportedExecAffinity, "unsupported exec affinity")
    LONGCLOCK_ERROR(cudaErrorUnsupportedDevSideSync, "unsupported dev side sync")
    LONGCLOCK_ERROR(cudaErrorContained, "contained")
    LONGCLOCK_ERROR(cudaErrorInvalidSource, "invalid source")
    LONGCLOCK_ERROR(cudaErrorFileNotFound, "file not found")
    LONGCLOCK_ERROR(cudaErrorSharedObjectSymbolNotFound, "shared object symbol not found")
    LONGCLOCK_ERROR(cudaErrorSharedObjectInitFailed, "shared object init failed")
    LONGCLOCK_ERROR(cudaErrorOperatingSystem, "operating system")
    LONGCLOCK_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle")
    LONGCLOCK_ERROR(cudaErrorIllegalState, "illegal state")
    LONGCLOCK_ERROR(cudaErrorLossyQuery, "lossy query")
    LONGCLOCK_ERROR(cudaErrorSymbolNotFound, "symbol not found")
    LONGCLOCK_ERROR(cudaErrorNotReady, "not ready")
    LONGCLOCK_ERROR(cudaErrorIllegalAddress, "illegal address")
    LONGCLOCK_ERROR(cudaErrorLaunchOutOfResources, "launch out of resources")
    LONGCLOCK_ERROR(cudaErrorLaunchTimeout, "launch timeout")
    LONGCLOCK_ERROR(cudaErrorLaunchIncompatibleTexturing, "launch incompatible texturing")
    LONGCLOCK_ERROR(cudaErrorPeerAccessAlreadyEnabled, "peer access already enabled")
    LONGCLOCK_ERROR(cudaErrorPeerAccessNotEnabled, "peer access not enabled")
    LONGCLOCK_ERROR(cudaErrorSetOnActiveProcess, "set on active process")
    LONGCLOCK_ERROR(cudaErrorContextIsDestroyed, "context is destroyed")
    LONGCLOCK_ERROR(cudaErrorAssert, "assert")
    LONGCLOCK_ERROR(cudaErrorTooManyPeers, "too many peers")
    LONGCLOCK_ERROR(cudaErrorHostMemoryAlreadyRegistered, "host memory already registered")
    LONGCLOCK_ERROR(cudaErrorHostMemoryNotRegistered, "host memory not registered")
    LONGCLOCK_ERROR(cudaErrorHardwareStackError, "hardware stack error")
    LONGCLOCK_ERROR(cudaErrorIllegalInstruction, "illegal instruction")
    LONGCLOCK_ERROR(cudaErrorMisalignedAddress, "misaligned address")
    LONGCLOCK_ERROR(cudaErrorInvalidAddressSpace, "invalid address space")
    LONGCLOCK_ERROR(cudaErrorInvalidPc, "invalid pc")
    LONGCLOCK_ERROR(cudaErrorLaunchFailure, "launch failure")
    LONGCLOCK_ERROR(cudaErrorCooperativeLaunchTooLarge, "cooperative launch too large")
    LONGCLOCK_ERROR(cudaErrorTensorMemoryLeak, "tensor memory leak")
    LONGCLOCK_ERROR(cudaErrorNotPermitted, "not permitted")
    LONGCLOCK_ERROR(cudaErrorNotSupported, "not supported")
    LONGCLOCK_ERROR(cudaErrorSystemNotReady, "system not ready")
    LONGCLOCK_ERROR(cudaErrorSystemDriverMismatch, "system driver mismatch")
    LONGCLOCK_ERROR(cudaErrorCompatNotSupportedOnDevice, "compat not supported on device")
    LONGCLOCK_ERROR(cudaErrorMpsConnectionFailed, "mps connection failed")
    LONGCLOCK_ERROR(cudaErrorMpsRpcFailure, "mps rpc failure")
    LONGCLOCK_ERROR(cudaErrorMpsServerNotReady, "mps server not ready")
    LONGCLOCK_ERROR(cudaErrorMpsMaxClientsReached, "mps max clients reached")
    LONGCLOCK_ERROR(cudaErrorMpsMaxConnectionsReached, "mps max connections reached")
    LONGCLOCK_ERROR(cudaErrorMpsClientTerminated, "mps client terminated")
    LONGCLOCK_ERROR(cudaErrorCdpNotSupported, "cdp not supported")
    LONGCLOCK_ERROR(cudaErrorCdpVersionMismatch, "cdp version mismatch")
    LONGCLOCK_ERROR(cudaErrorStreamCaptureUnsupported, "stream capture unsupported")
    LONGCLOCK_ERROR(cudaErrorStreamCaptureInvalidated, "stream capture invalidated")
    LONGCLOCK_ERROR(cudaErrorStreamCaptureMerge, "stream capture merge")
    LONGCLOCK_ERROR(cudaErrorStreamCaptureUnmatched, "stream capture unmatched")
    LONGCLOCK_ERROR(cudaErrorStreamCaptureUnjoined, "stream capture unjoined")
    LONGCLOCK_ERROR(cudaErrorStreamCaptureIsolation, "stream capture isolation")
    LONGCLOCK_ERROR(cudaErrorStreamCaptureImplicit, "stream capture implicit")
    LONGCLOCK_ERROR(cudaErrorCapturedEvent, "captured event")
    LONGCLOCK_ERROR(cudaErrorStreamCaptureWrongThread, "stream capture wrong thread")
    LONGCLOCK_ERROR(cudaErrorTimeout, "timeout")
    LONGCLOCK_ERROR(cudaErrorGraphExecUpdateFailure, "graph exec update failure")
    LONGCLOCK_ERROR(cudaErrorExternalDevice, "external device")
    LONGCLOCK_ERROR(cudaErrorInvalidClusterSize, "invalid cluster size")
    LONGCLOCK_ERROR(cudaErrorFunctionNotLoaded, "function not loaded")
    LONGCLOCK_ERROR(cudaErrorInvalidResourceType, "invalid resource type")
    LONGCLOCK_ERROR(cudaErrorInvalidResourceConfiguration, "invalid resource configuration")
    LONGCLOCK_ERROR(cudaErrorUnknown, "unknown")
    // clang-format on
};
#undef LONGCLOCK_ERROR

const ErrorText* find(cudaError_t error) {
  for (const ErrorText& known : kErrors) {
    if (known.error == error) return &known;
  }
  return nullptr;
}

}  // namespace

cudaError_t fail(cudaError_t error) {
  if (error != cudaSuccess) last = error;
  return error;
}

cudaError_t fail(cudaError_t error, const char* reason) {
  std::fprintf(stderr, "longclock emulator: %s\n", reason);
  return fail(error);
}

}  // namespace longclock::emulator

using namespace longclock::emulator;

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  last = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return last; }
const char* cudaGetErrorName(cudaError_t error) {
  const ErrorText* known = find(error);
  return known == nullptr ? "unrecognized error code" : known->name;
}
const char* cudaGetErrorString(cudaError_t error) {
  const ErrorText* known = find(error);
  return known == nullptr ? "unrecognized error code" : known->text;
}

}  // extern "C"
