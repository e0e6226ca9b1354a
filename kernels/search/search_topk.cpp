// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/search_topk.h"

#include <algorithm>

namespace longclock {

void search_merge_cpu(const SearchTopKParams& p, int64_t begin, int64_t end) {
  for (int64_t q = begin; q < end; ++q) {
    TopKEntry* first = p.entries + q * p.parts * p.k;
    TopKEntry* last = std::remove(first, first + p.parts * p.k, TopKEntry{0});  // gaps of parts
    write_topk(first, last - first, p.k, p.scores + q * p.k, p.indices + q * p.k);
  }
}

}  // namespace longclock
