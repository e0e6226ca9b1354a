// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/sweep.cuh"

namespace longclock {

int launch_sweep_fp32(const SweepParams& p, Sweep sweep, CudaStream stream) {
  return launch_sweep<float>(p, sweep, stream);
}

}  // namespace longclock
