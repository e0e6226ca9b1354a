// SPDX-License-Identifier: Apache-2.0
#include "longclock/gsu_score/gsu_score.cuh"
#include "longclock/gsu_score/gsu_score_few.cuh"

namespace longclock {

int launch_gsu_score_float8(const DeviceSearchParams& search, bool only_alone, float* scores,
                            CudaStream stream) {
  return launch_gsu_score_alone(search, only_alone, scores, stream, [&](const auto& launch) {
    with_float8_rows(search,
                     [&](auto element, auto form) { launch(element, form, std::false_type()); });
  });
}

int launch_gsu_score_few_float8(const DeviceSearchParams& search, const FewTiles& tiles,
                                float* scores, CudaStream stream) {
  return launch_gsu_score_tiles(search, tiles, scores, stream,
                                [&](const auto& launch) { with_float8_rows(search, launch); });
}

}  // namespace longclock
