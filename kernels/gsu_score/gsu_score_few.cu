// SPDX-License-Identifier: Apache-2.0
#include "longclock/gsu_score/gsu_score_few.cuh"

namespace longclock {

int launch_gsu_score_few(const DeviceSearchParams& search, float* scores, Left* left,
                         CudaStream stream) {
  *left = Left::kAll;
  if (!shares_sequences(search)) return cudaSuccess;
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  const int64_t room = device.shared_optin - static_cast<int64_t>(sizeof(FewShared)) -
                       kTileQueries * static_cast<int64_t>(sizeof(int64_t));
  const int64_t fits = room / (few_row_bytes(search) + kFewScoreBytes);
  if (fits < 2) return cudaSuccess;
  FewTiles tiles = few_tiles(search, fits < kTileQueries ? fits : kTileQueries);
  tiles.parts = balanced_parts(tiles.count, search.score_count / search.queries,
                               {kFewStart, kFewThreads}, device.multiprocessors);
  *left = tiles.windows ? Left::kAlone : Left::kNone;
  const DType dtype = search.behaviours.dtype;
  if (dtype == DType::kInt8) return launch_gsu_score_few_int8(search, tiles, scores, stream);
  if (dtype == DType::kFloat8) return launch_gsu_score_few_float8(search, tiles, scores, stream);
  return launch_gsu_score_tiles(search, tiles, scores, stream, [&](const auto& launch) {
    LONGCLOCK_WITH_DTYPE(dtype, T, with_form(search, [&](auto form) { launch(T{}, form); }));
  });
}

}  // namespace longclock
