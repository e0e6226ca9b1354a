// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/sweep.cuh"

namespace longclock {

int launch_sweep_fp16(const SweepParams& p, Sweep sweep, CudaStream stream) {
  return launch_sweep<Float16>(p, sweep, stream);
}

}  // namespace longclock
