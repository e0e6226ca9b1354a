// SPDX-License-Identifier: Apache-2.0
// Everything is done when it is asked for, so that streams and events have nothing to wait for.
#include <cuda_runtime_api.h>

#include <chrono>

#include "capture.h"
#include "errors.h"

namespace longclock::emulator {
namespace {

struct Event {
  std::chrono::steady_clock::time_point at{};
  bool recorded = false;
};

Event* event_of(cudaEvent_t event) { return reinterpret_cast<Event*>(event); }

cudaError_t make_stream(cudaStream_t* out) {
  *out = reinterpret_cast<cudaStream_t>(new char);
  return cudaSuccess;
}

// 0, 1 and 2 are the default, the legacy and the per-thread stream.
bool is_default(cudaStream_t stream) { return reinterpret_cast<uintptr_t>(stream) <= 2; }

}  // namespace
}  // namespace longclock::emulator

using namespace longclock::emulator;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* out) { return make_stream(out); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned) { return make_stream(out); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned, int) {
  return make_stream(out);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (is_default(stream)) return fail(cudaErrorInvalidResourceHandle);
  delete reinterpret_cast<char*>(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  if (const cudaError_t error = refuse_while_capturing("cudaStreamSynchronize")) return error;
  return cudaPeekAtLastError();
}
cudaError_t cudaStreamQuery(cudaStream_t) {
  if (const cudaError_t error = refuse_while_capturing("cudaStreamQuery")) return error;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t, unsigned) {
  if (const cudaError_t error = check_captured("cudaStreamWaitEvent", stream)) return error;
  return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t, unsigned* flags) {
  *flags = cudaStreamDefault;
  return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamGetDevice(cudaStream_t, int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void* data,
                                  unsigned) {
  if (const cudaError_t error = refuse_while_capturing("cudaStreamAddCallback")) return error;
  callback(stream, cudaSuccess, data);
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  if (const cudaError_t error = check_captured("cudaLaunchHostFunc", stream)) return error;
  function(data);
  return cudaSuccess;
}

// No stream is ever captured into a graph; see capture.h for what would not allow it.
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return fail(cudaErrorNotSupported, "graphs are not emulated");
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) {
  return fail(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  *status = cudaStreamCaptureStatusNone;
  if (id != nullptr) *id = 0;
  if (graph != nullptr) *graph = nullptr;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* out) {
  *out = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) { return cudaEventCreate(out); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (event == nullptr) return fail(cudaErrorInvalidResourceHandle);
  delete event_of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (const cudaError_t error = check_captured("cudaEventRecord", stream)) return error;
  if (event == nullptr) return fail(cudaErrorInvalidResourceHandle);
  *event_of(event) = {std::chrono::steady_clock::now(), true};
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  if (const cudaError_t error = refuse_while_capturing("cudaEventSynchronize")) return error;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) {
  if (const cudaError_t error = refuse_while_capturing("cudaEventQuery")) return error;
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  if (const cudaError_t error = refuse_while_capturing("cudaEventElapsedTime")) return error;
  if (from == nullptr || to == nullptr || !event_of(from)->recorded || !event_of(to)->recorded) {
    return fail(cudaErrorInvalidResourceHandle);
  }
  *milliseconds =
      std::chrono::duration<float, std::milli>(event_of(to)->at - event_of(from)->at).count();
  return cudaSuccess;
}

}  // extern "C"
