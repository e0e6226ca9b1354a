// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/launch.cuh"
#include "longclock/search/few_scorer.cuh"
#include "longclock/search/key_stages.cuh"
#include "longclock/search/sweep_rows.h"

namespace longclock {
namespace {

constexpr int kMaxRowBytes = 512;  // of candidates that stay in registers
constexpr int kBlockThreads = 256;
constexpr int kBlockQueries = 8;

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    sweep_pack_kernel(const __grid_constant__ DeviceSearchParams p,
                      const __grid_constant__ QueryTask task, int row_bytes, char* packed) {
  const int64_t first = int64_t{blockIdx.x} * kBlockQueries, q = task.begin + first;
  const int count = static_cast<int>(min(task.end - q, int64_t{kBlockQueries}));
  load_few_queries<T>(p, q, count, row_bytes, packed + first * row_bytes);
}

// Whether each row begins at a whole word of 32 bits.
bool begin_at_words(const DeviceSearchParams& search) {
  const Behaviours& b = search.behaviours;
  const auto at_words = [&](const void* rows, int64_t stride) {
    return reinterpret_cast<uintptr_t>(rows) % 4 == 0 && stride * size_of(b.dtype) % 4 == 0;
  };
  bool all = at_words(b.keys, b.key_row_stride) && search.sequence_bytes % 4 == 0;
  for (int f = 0; f < b.feature_count; ++f) {
    all = all && at_words(b.features[f].keys, b.features[f].row_stride);
  }
  return all;
}

}  // namespace

SweepRows plan_sweep_rows(const DeviceSearchParams& search) {
  const Behaviours& b = search.behaviours;
  const int64_t bytes = search.query_dim * size_of(b.dtype);
  const bool aligned = search_is_aligned(search), several = b.feature_count > 0;
  SweepRows rows{};
  if (aligned && bytes <= (several ? kMaxFeatureRowBytes : kMaxRowBytes)) return rows;
  const int64_t padded = padded_query_bytes(search);
  const bool rounded = search.query_is_float && b.dtype != DType::kFloat32;
  rows.panels = static_cast<int>(padded / kPanelBytes);
  rows.unit = aligned ? 16 : begin_at_words(search) ? 4 : 2;
  rows.packed = several || rounded || !aligned16(search.query, 0, search.query_dim, b.dtype);
  rows.candidate_bytes = static_cast<int>(rows.packed ? padded : bytes);
  return rows;
}

int launch_pack_candidates(const DeviceSearchParams& search, const QueryTask& task,
                           const SweepRows& rows, void* packed, CudaStream stream) {
  const unsigned blocks = grid_of((task.end - task.begin + kBlockQueries - 1) / kBlockQueries);
  LONGCLOCK_WITH_DTYPE(search.behaviours.dtype, T, {
    sweep_pack_kernel<T><<<blocks, kBlockThreads, 0, stream>>>(search, task, rows.candidate_bytes,
                                                               static_cast<char*>(packed));
  });
  return cudaGetLastError();
}

}  // namespace longclock
