// SPDX-License-Identifier: Apache-2.0
// How the kernels of esu_attention are chosen and cut into launches.
#pragma once

#include "longclock/common/launch.cuh"
#include "longclock/esu_attention/esu_attention_pieces.cuh"

namespace longclock {

template <class T>
EsuGeometry esu_geometry(const DeviceEsuAttentionParams& p) {
  const int64_t dim = p.dim;
  EsuGeometry g{};
  g.lanes = kVector16<T>;  // two halves with a piece each, of 16-bit rows
  while (g.lanes < kWarp && g.lanes * 4 < dim) g.lanes *= 2;
  while (1 << g.shift < g.lanes) ++g.shift;
  g.panels = dim <= kWarp * 4 ? 1 : static_cast<int>((dim + kWarp * 4 - 1) / (kWarp * 4));
  g.groups = p.heads <= kEsuHeads ? 1 : static_cast<int>(esu_head_groups(p.heads));
  g.parts = static_cast<int>(esu_parts(p.k));
  make_device_clocks(p.behaviours.time, g.clocks);
  return g;
}

// Whether all rows lie at multiples of 16 bytes.
inline bool esu_is_aligned(const DeviceEsuAttentionParams& p, bool others_aligned) {
  const Behaviours& b = p.behaviours;
  bool aligned = others_aligned && aligned16(b.keys, b.key_row_stride, b.dim, b.dtype) &&
                 aligned16(b.keys, p.z_query_stride, b.dim, b.dtype) &&
                 aligned16(p.u, p.dim, p.dim, p.u_is_float ? DType::kFloat32 : b.dtype);
  for (int i = 0; i < b.feature_count; ++i) {
    const Feature& f = b.features[i];
    aligned = aligned && aligned16(f.keys, f.row_stride, f.dim, b.dtype);
  }
  return aligned;
}

inline EsuForm esu_form(const DeviceEsuAttentionParams& p, bool others_aligned) {
  const bool aligned = esu_is_aligned(p, others_aligned);
  if (p.behaviours.feature_count > 0) {
    return !aligned            ? EsuForm::kAnyTables
           : p.dim > kWarp * 4 ? EsuForm::kWideTables
                               : EsuForm::kTables;
  }
  return !aligned ? EsuForm::kAny : p.dim > kWarp * 4 ? EsuForm::kWide : EsuForm::kFast;
}

// Calls f(EsuInstance of the dtype and form) and returns its error. Whether what comes besides z
// and u suits 16-byte loads is for the caller to say.
template <class T, EsuForm form>
struct EsuInstance {
  using Type = T;
  static constexpr EsuForm kForm = form;
};
template <class F>
int with_esu_form(const DeviceEsuAttentionParams& p, bool others_aligned, const F& f) {
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, {
    switch (esu_form(p, others_aligned)) {
      case EsuForm::kFast:
        return f(EsuInstance<T, EsuForm::kFast>{});
      case EsuForm::kWide:
        return f(EsuInstance<T, EsuForm::kWide>{});
      case EsuForm::kAny:
        return f(EsuInstance<T, EsuForm::kAny>{});
      case EsuForm::kTables:
        return f(EsuInstance<T, EsuForm::kTables>{});
      case EsuForm::kWideTables:
        return f(EsuInstance<T, EsuForm::kWideTables>{});
      case EsuForm::kAnyTables:
        return f(EsuInstance<T, EsuForm::kAnyTables>{});
    }
  });
  return cudaErrorInvalidValue;
}

}  // namespace longclock
