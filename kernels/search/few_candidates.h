// SPDX-License-Identifier: Apache-2.0
// The best of few candidates of one request, on CUDA: a block reads each key once for up to 16 of
// them, and keeps the k best of each in shared memory. The scores of a candidate have the bits that
// it has alone. Also for many candidates where the sweeps of many_candidates.h cannot run.
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/few_tiles.h"
#include "longclock/search/search_topk.h"

namespace longclock {

struct FewPlan {
  bool supported;
  FewTiles tiles;
  int room;  // entries of each candidate's list
  // Shared memory: of queries and scores, and at the end of those that are sorted; of a list; and
  // for long ones, of what is counted in them.
  int front_bytes, list_bytes, digit_bytes;
};

// Whether a search is for this kernel: candidates that share sequences, and queries of which shared
// memory holds two with their lists. Returns a cudaError_t.
int plan_few_topk(const DeviceSearchParams& search, int64_t k, FewPlan* plan);

// All queries, of which params.parts is plan.tiles.parts. Of plan.tiles.windows those whose window
// a neighbour sees, whose parts are left to be merged: launch_clock_gsu() does so, with
// params.only_alone. Returns a cudaError_t: 0 is success. Allocates nothing and waits for nothing.
int launch_few_topk(const DeviceSearchTopKParams& params, const FewPlan& plan, CudaStream stream);

// The tiles of rows of int8, and of float8, which are compiled on their own.
int launch_few_tiles_int8(const DeviceSearchTopKParams& params, const FewPlan& plan,
                          CudaStream stream);
int launch_few_tiles_float8(const DeviceSearchTopKParams& params, const FewPlan& plan,
                            CudaStream stream);

}  // namespace longclock
