// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/sweep.cuh"

namespace longclock {

int launch_sweep_int8(const SweepParams& p, Sweep sweep, CudaStream stream) {
  return launch_sweep<Int8By<int8_t>>(p, sweep, stream);
}

}  // namespace longclock
