// SPDX-License-Identifier: Apache-2.0
// How rows and candidates come to the sweeps of many_candidates.h: whole, where candidates stay in
// registers; or in panels, for rows that are wider, of several wide tables, or not in whole aligned
// pieces of 16 bytes.
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/query_task.h"

namespace longclock {

// Of a table's columns the first panel has the first, and the last has zeros behind its last.
constexpr int kPanelBytes = 128;

struct SweepRows {
  int panels;           // of a row; 0: rows come whole
  int unit;             // all rows begin at multiples of so many bytes: 16, 4 or 2
  bool packed;          // candidates are copied first, rounded and cut into panels as rows are
  int candidate_bytes;  // from one candidate to the next

  // Workspace of a candidate.
  int64_t packed_bytes() const { return packed ? candidate_bytes : 0; }
};

SweepRows plan_sweep_rows(const DeviceSearchParams& search);

// The candidates of a task as rows.packed says, at a multiple of 16 bytes. Returns a cudaError_t.
int launch_pack_candidates(const DeviceSearchParams& search, const QueryTask& task,
                           const SweepRows& rows, void* packed, CudaStream stream);

}  // namespace longclock
