// SPDX-License-Identifier: Apache-2.0
// What a block of the forward leaves: the context, or what the second kernel makes it of.
#pragma once

#include "longclock/esu_attention/esu_attention_rows.cuh"

namespace longclock {

constexpr int kEsuSums = kTimeFeatures + 1;  // of a head, besides columns: p * phi, and p

__device__ __forceinline__ float finite_base(float top) {
  return top == -INFINITY ? 0.0f : top;  // nothing but -inf so far: weights of 0
}

// What the warps of a block leave to its sums.
struct EsuBlockSums {
  float tops[kEsuWarps][kEsuHeads];
  float sums[kEsuWarps][kEsuHeads][kEsuSums];

  __device__ __forceinline__ float of(int head, int i) const {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kEsuWarps; ++warp) sum += sums[warp][head][i];
    return sum;
  }
};

// Writes the context itself where there is one part, else what the second kernel merges.
// column(head, i): the sum of the block's column i. more_sums(c): of clock c, after the first, the
// sums of p * phi, those of a head at places kWarp apart, one a warp. `top` is that of head
// lane & 3; any: a behaviour of the block is valid.
template <class Column, class MoreSums>
__device__ __forceinline__ void write_part(const DeviceEsuAttentionParams& p, const EsuGeometry& g,
                                           const EsuPlace& place, const EsuColumns& columns,
                                           const EsuBlockSums& sums, float top, bool any,
                                           const Column& column, const MoreSums& more_sums) {
  const bool whole = g.parts == 1;
  const int64_t query = place.query, dim = p.dim;
  const int first_head = place.group * kEsuHeads;
  const int64_t width = whole ? p.width : esu_partial_width(p.width);
  const auto out_row = [&](int head) {
    return whole
               ? p.context + (query * p.heads + first_head + head) * width
               : p.partial + ((query * g.parts + place.part) * p.heads + first_head + head) * width;
  };
  // Valid behaviours whose alphas are all -inf give 0 / 0, as torch's softmax does.
  const auto divisor = [&](int head) { return whole && any ? sums.of(head, kTimeFeatures) : 1.0f; };
  const int head_count = static_cast<int>(min(int64_t{kEsuHeads}, p.heads - first_head));
  static_assert(kEsuWarps == kEsuHeads);
  if (const int head = warp_index(); head < head_count) {
    const float by = divisor(head);
    float* out = out_row(head) + columns.begin;
#pragma unroll 1
    for (int i = lane_index(); i < columns.count; i += kWarp) out[i] = column(head, i) / by;
  }
  if (place.panel != 0 || warp_index() != 0 || lane_index() >= head_count) return;
  const int head = lane_index() % kEsuHeads;
  float* out = out_row(head) + dim;
  const float by = divisor(head), sum = sums.of(head, kTimeFeatures);
#pragma unroll
  for (int i = 0; i < kTimeFeatures; ++i) out[i] = sums.of(head, i) / by;
  const int features = p.behaviours.time.features();
#pragma unroll 1
  for (int i = kTimeFeatures; i < features; ++i) {
    const float* of_place = &more_sums(i / kTimeFeatures)->x;
    float feature = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kEsuWarps; ++warp) {
      feature += of_place[(warp * kWarp + head) * kTimeFeatures + i % kTimeFeatures];
    }
    out[i] = feature / by;
  }
  if (whole) {
    float* softmax = p.softmax + (query * p.heads + first_head + head) * 2;
    softmax[0] = top;
    softmax[1] = any ? logf(sum) : 0.0f;
  } else {
    out[features] = top;
    out[features + 1] = sum;
    out[features + 2] = any ? 1.0f : 0.0f;
  }
}

}  // namespace longclock
