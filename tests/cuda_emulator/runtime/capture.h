// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

namespace longclock::emulator {

// While options().capturing, as if the global mode captured launch_stream() into a graph: what that
// would not allow is reported by name and refused. Work is still done at once. Each returns
// cudaSuccess where there is nothing to refuse.

// A call that waits, asks whether work is done, or allocates.
cudaError_t refuse_while_capturing(const char* call);
// Work on a stream: on another one than launch_stream() it would not be part of the graph.
cudaError_t check_captured(const char* call, cudaStream_t stream);
// A copy that is work on a stream, but to or from the host.
cudaError_t check_captured(const char* call, cudaStream_t stream, cudaMemcpyKind kind);

}  // namespace longclock::emulator
