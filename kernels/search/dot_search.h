// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/search/search_topk.h"

namespace longclock {

// Tasks of multiples of this many candidates are whole panels at every SIMD level.
constexpr int64_t kCandidatePanel = 32;

// The k behaviours of best score = scale * key . query + s for every query; scores never leave the
// cache.
struct DotSearchParams : SearchTopKParams {
  // [Q, round_up(D, 16)], padded with zeros. Where rows are int8, behind each query is the float
  // that takes the place of `scale`: that times the query's own.
  const float* queries;
  int64_t query_stride;  // elements, a multiple of 16
  float scale;
};

}  // namespace longclock
