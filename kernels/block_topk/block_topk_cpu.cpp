// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "block_topk.h"

namespace longclock {
namespace {

constexpr uint16_t kMinusInfinity16[] = {0xfc00, 0xff80};  // fp16, bf16

// Copies the chosen scores, so that their bits (a -0, a NaN's payload) are the input's.
void copy_score(const BlockTopKParams& p, int64_t row, int64_t index, int64_t to) {
  if (p.dtype == DType::kFloat32) {
    static_cast<float*>(p.top_scores)[to] =
        index < 0 ? -__builtin_inff()
                  : static_cast<const float*>(p.scores)[row * p.row_stride + index];
  } else {
    static_cast<uint16_t*>(p.top_scores)[to] =
        index < 0 ? kMinusInfinity16[p.dtype == DType::kBFloat16]
                  : static_cast<const uint16_t*>(p.scores)[row * p.row_stride + index];
  }
}

}  // namespace

void block_topk_cpu(const BlockTopKParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(block_topk(params, begin, end));
}

void block_topk_merge_cpu(const BlockTopKParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    TopKEntry* entries = p.entries + row * p.parts * p.k;
    const int64_t n = p.parts * p.k;
    sort_best(entries, n, p.k);
    for (int64_t i = 0; i < p.k; ++i) {
      const int64_t index = entries[i] == 0 ? -1 : entry_index(entries[i]);
      p.indices[row * p.k + i] = index;
      copy_score(p, row, index, row * p.k + i);
    }
  }
}

void block_topk_backward_cpu(const BlockTopKBackwardParams& p, int64_t begin, int64_t end) {
  const int64_t size = size_of(p.dtype);
  const char* grad = static_cast<const char*>(p.grad);
  char* out = static_cast<char*>(p.out);
  for (int64_t row = begin; row < end; ++row) {
    std::memset(out + row * p.columns * size, 0, static_cast<size_t>(p.columns * size));
    for (int64_t i = row * p.k; i < (row + 1) * p.k; ++i) {
      if (p.indices[i] < 0) continue;
      std::memcpy(out + (row * p.columns + p.indices[i]) * size, grad + i * size,
                  static_cast<size_t>(size));
    }
  }
}

}  // namespace longclock
