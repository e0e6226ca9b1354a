// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "longclock/block_topk/block_topk.h"

namespace longclock {
namespace {

constexpr uint16_t kMinusInfinity16[] = {0xfc00, 0xff80};  // fp16, bf16

// Copies the chosen scores, so that their bits (a -0, a NaN's payload) are the input's.
template <class Score>
void copy_scores(const BlockTopKParams& p, int64_t row, int64_t n, Score none) {
  const Score* from = static_cast<const Score*>(p.scores) + row * p.row_stride;
  Score* to = static_cast<Score*>(p.top_scores) + row * p.k;
  const int64_t* indices = p.indices + row * p.k;
  for (int64_t i = 0; i < n; ++i) to[i] = from[indices[i]];
  for (int64_t i = n; i < p.k; ++i) to[i] = none;
}

}  // namespace

void block_topk_cpu(const BlockTopKParams& params, int64_t begin, int64_t end) {
  LONGCLOCK_CALL_LEVEL(block_topk(params, begin, end));
}

void write_topk_row(const BlockTopKParams& p, int64_t row, const TopKEntry* best, int64_t n) {
  int64_t* indices = p.indices + row * p.k;
  for (int64_t i = 0; i < n; ++i) indices[i] = entry_index(best[i]);
  for (int64_t i = n; i < p.k; ++i) indices[i] = -1;
  if (p.dtype == DType::kFloat32) {
    copy_scores<float>(p, row, n, -__builtin_inff());
  } else {
    copy_scores<uint16_t>(p, row, n, kMinusInfinity16[p.dtype == DType::kBFloat16]);
  }
}

void block_topk_merge_cpu(const BlockTopKParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    TopKEntry* entries = p.entries + row * p.parts * p.k;
    int64_t n = sort_best(entries, p.parts * p.k, p.k);
    while (n > 0 && entries[n - 1] == 0) --n;  // padding
    write_topk_row(p, row, entries, n);
  }
}

void block_topk_backward_cpu(const BlockTopKBackwardParams& p, int64_t begin, int64_t end) {
  const int64_t size = size_of(p.dtype);
  const char* grad = static_cast<const char*>(p.grad);
  char* out = static_cast<char*>(p.out);
  for (int64_t row = begin; row < end; ++row) {
    std::fill_n(out + row * p.columns * size, p.columns * size, 0);  // null of no columns
    for (int64_t i = row * p.k; i < (row + 1) * p.k; ++i) {
      if (p.indices[i] < 0) continue;
      std::memcpy(out + (row * p.columns + p.indices[i]) * size, grad + i * size,
                  static_cast<size_t>(size));
    }
  }
}

}  // namespace longclock
