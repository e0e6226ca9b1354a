// SPDX-License-Identifier: Apache-2.0
#include "longclock/clock_gsu/clock_gsu.cuh"

namespace longclock {

int launch_clock_gsu(const DeviceSearchTopKParams& p, CudaStream stream) {
  const DeviceSearchParams& search = p.search;
  const DType dtype = search.behaviours.dtype;
  if (dtype == DType::kInt8) return launch_clock_gsu_int8(p, stream);
  if (dtype == DType::kFloat8) return launch_clock_gsu_float8(p, stream);
  return launch_clock_gsu(p, stream, [&](const auto& start) {
    LONGCLOCK_WITH_DTYPE(dtype, T, with_row_form(search, [&](auto form, auto features) {
                           start(T{}, form, features);
                         }));
  });
}

}  // namespace longclock
