// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/few_candidates.cuh"

namespace longclock {

int launch_few_tiles_float8(const DeviceSearchTopKParams& p, const FewPlan& plan,
                            CudaStream stream) {
  return launch_few_tiles(p, plan, stream,
                          [&](const auto& launch) { with_float8_rows(p.search, launch); });
}

}  // namespace longclock
