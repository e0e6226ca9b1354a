// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/sweep.cuh"

namespace longclock {

int launch_sweep_int8_floats(const SweepParams& p, Sweep sweep, CudaStream stream) {
  if (p.search.behaviours.query_dtype == DType::kBFloat16) {
    return launch_sweep<Int8By<BFloat16>>(p, sweep, stream);
  }
  return launch_sweep<Int8By<float>>(p, sweep, stream);
}

}  // namespace longclock
