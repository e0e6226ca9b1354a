// SPDX-License-Identifier: Apache-2.0
// Which calls of esu_attention are for tensor cores, and their launches.
#pragma once

#include <type_traits>

#include "longclock/common/launch.cuh"
#include "longclock/esu_attention/esu_attention_columns.cuh"

namespace longclock {

// Columns of a row that a block can hold in shared memory.
constexpr int64_t kEsuMmaColumns = 512;

// Whether z's products are done on tensor cores: rows of 16 bits, of which as many columns fit, on
// sm_80 and later. Not a question of alignment or of tables, so that equal rows have equal bits
// wherever they lie.
int plan_esu_mma(const DeviceEsuAttentionParams& params, bool* supported);

// The blocks of `count` queries from g.query_begin on, in g.parts and g.groups. aligned: rows can
// be read 16 bytes at a time.
int launch_esu_mma(const DeviceEsuAttentionParams& params, const EsuGeometry& g, bool aligned,
                   int64_t count, CudaStream stream);
int launch_esu_backward_mma(const DeviceEsuAttentionBackwardParams& params, const EsuGeometry& g,
                            bool aligned, int64_t count, CudaStream stream);

// A launch of `kernel` for them, whose shared memory has the layout `m`.
template <class Kernel, class Params, class Layout>
int launch_esu_blocks(Kernel* kernel, const Params& params, const EsuGeometry& g, const Layout& m,
                      int64_t count, CudaStream stream) {
  DeviceLimits device;
  if (const int error = current_device_limits(&device)) return error;
  if (const int error = allow_all_shared(kernel, device)) return error;
  const int64_t blocks = count * g.parts * g.groups;
  kernel<<<grid_of(blocks), kEsuThreads, static_cast<size_t>(m.bytes), stream>>>(params, g, m);
  return cudaGetLastError();
}

// Calls f(EsuStageInstance) of the dtype, the bytes of a row in shared memory and the alignment,
// and returns its error.
template <class T, int bytes, bool aligned>
struct EsuStageInstance {
  using Type = T;
  static constexpr int kRowBytes = bytes;
  static constexpr bool kAligned = aligned;
};
template <class F>
int with_esu_stage(const DeviceEsuAttentionParams& p, bool aligned, const F& f) {
  const auto with_bytes = [&](auto type, auto is_aligned) {
    using T = decltype(type);
    constexpr bool kAligned = decltype(is_aligned)::value;
    if (p.dim <= 64) return f(EsuStageInstance<T, 128, kAligned>{});
    if (p.dim <= 128) return f(EsuStageInstance<T, 256, kAligned>{});
    if (p.dim <= 256) return f(EsuStageInstance<T, 512, kAligned>{});
    return f(EsuStageInstance<T, 1024, kAligned>{});
  };
  const auto with = [&](auto type) {
    return aligned ? with_bytes(type, std::true_type()) : with_bytes(type, std::false_type());
  };
  return p.behaviours.dtype == DType::kFloat16 ? with(Float16{}) : with(BFloat16{});
}

}  // namespace longclock
