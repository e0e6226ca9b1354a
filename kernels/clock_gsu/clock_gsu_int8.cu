// SPDX-License-Identifier: Apache-2.0
#include "longclock/clock_gsu/clock_gsu.cuh"

namespace longclock {

int launch_clock_gsu_int8(const DeviceSearchTopKParams& p, CudaStream stream) {
  const DeviceSearchParams& search = p.search;
  return launch_clock_gsu(p, stream, [&](const auto& start) {
    with_int8_rows(search,
                   [&](auto element, auto form) { start(element, form, std::false_type()); });
  });
}

}  // namespace longclock
