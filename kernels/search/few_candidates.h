// SPDX-License-Identifier: Apache-2.0
// Few candidates of one request, on CUDA: a block reads each key once for up to 16 of them, and
// keeps the k best of each in shared memory. The scores of a candidate have the bits that it has
// alone. Also for many candidates whose rows the sweeps of many_candidates.h cannot read.
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/query_task.h"
#include "longclock/search/search_topk.h"

namespace longclock {

// How a search is cut into tiles of candidates, a block each and part.
struct FewPlan {
  bool supported;
  int most;       // candidates of a tile
  int row_bytes;  // of a query in shared memory
  QueryTask task;
  int64_t tiles;  // of which some may be empty
  int64_t parts;  // of every sequence
  bool windows;   // one a query: tiles are of equal ones next to each other, or empty
};

// Whether a search is for this kernel: candidates that share sequences, a k that a warp selects,
// and queries that shared memory holds. Returns a cudaError_t.
int plan_few_topk(const DeviceSearchParams& search, int64_t k, FewPlan* plan);

// All queries, of which params.parts is plan.parts. Of plan.windows those whose window a
// neighbour sees, whose parts are left to be merged: launch_clock_gsu() does so, with
// params.only_alone. Returns a cudaError_t: 0 is success. Allocates nothing and waits for nothing.
int launch_few_topk(const DeviceSearchTopKParams& params, const FewPlan& plan, CudaStream stream);

}  // namespace longclock
