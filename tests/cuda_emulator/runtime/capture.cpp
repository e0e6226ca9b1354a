// SPDX-License-Identifier: Apache-2.0
#include "capture.h"

#include <string>

#include "../checks/report.h"
#include "../emulator.h"
#include "errors.h"

namespace longclock::emulator {
namespace {

cudaError_t refuse(const std::string& what, cudaError_t error) {
  Report report;
  report.kind = "capture";
  report.message = what;
  add_report(report);
  return fail(error);
}

}  // namespace

cudaStream_t launch_stream() {
  static char stream;
  return reinterpret_cast<cudaStream_t>(&stream);
}

cudaError_t refuse_while_capturing(const char* call) {
  if (!options().capturing) return cudaSuccess;
  return refuse(std::string(call) + " is not permitted while a stream is captured",
                cudaErrorStreamCaptureUnsupported);
}

cudaError_t check_captured(const char* call, cudaStream_t stream) {
  if (!options().capturing || stream == launch_stream()) return cudaSuccess;
  const bool is_default = reinterpret_cast<uintptr_t>(stream) <= 2;
  return refuse(std::string(call) + " on " + (is_default ? "a default stream" : "another stream") +
                    " is no part of the graph that is captured",
                is_default ? cudaErrorStreamCaptureImplicit : cudaErrorStreamCaptureIsolation);
}

cudaError_t check_captured(const char* call, cudaStream_t stream, cudaMemcpyKind kind) {
  if (options().capturing && kind != cudaMemcpyDeviceToDevice) {
    return refuse(std::string(call) + " to or from the host cannot be replayed with other values",
                  cudaErrorStreamCaptureUnsupported);
  }
  return check_captured(call, stream);
}

}  // namespace longclock::emulator
