// SPDX-License-Identifier: Apache-2.0
#include "selection.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace longclock {

void select_largest(TopKEntry* entries, int64_t n, int64_t k) {
  std::nth_element(entries, entries + (k - 1), entries + n, std::greater<TopKEntry>());
}

void sort_entries(TopKEntry* entries, int64_t n) {
  std::sort(entries, entries + n, std::greater<TopKEntry>());
}

void write_topk(TopKEntry* entries, int64_t n, int64_t k, float* scores, int64_t* indices) {
  if (n > k) {
    if (k > 0) select_largest(entries, n, k);
    n = k;
  }
  sort_entries(entries, n);
  for (int64_t i = 0; i < n; ++i) {
    scores[i] = entry_score(entries[i]);
    indices[i] = entry_index(entries[i]);
  }
  for (int64_t i = n; i < k; ++i) {
    scores[i] = -std::numeric_limits<float>::infinity();
    indices[i] = -1;
  }
}

}  // namespace longclock
