// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/search/device_search.h"

namespace longclock {

// Queries that are done by one launch.
struct QueryTask {
  int64_t begin, end;
  int64_t first_sequence;
  int64_t sequences;  // that may have queries in it
};

// Queries [begin, end) of a search.
inline QueryTask query_task(const DeviceSearchParams& search, int64_t begin, int64_t end) {
  if (search.layout != SearchLayout::kDense) return {begin, end, 0, search.sequences};
  const int64_t first = begin / search.candidates;
  return {begin, end, first, (end - 1) / search.candidates - first + 1};
}

}  // namespace longclock
