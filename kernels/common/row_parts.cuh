// SPDX-License-Identifier: Apache-2.0
// The sums of a table's rows, of which one may be looked up by a single position of a list and
// another by a hundredth of it. The list is sorted by row, so a row is a run of positions. Whoever
// stands at a run's first position adds up its first part, and that is all of most runs. Each
// further part has a task of its own, and a second launch adds the parts of a run in order.
// Parts are counted from the run's first position, so that nothing else in the list shows in a
// bit.
#pragma once

#include "longclock/common/dtype.h"
#include "longclock/common/row_lists.h"

namespace longclock {

constexpr int64_t kRowPart = 64;  // positions of a part, at most

// Task `slot` looks after the kRowPart positions of the list from slot * kRowPart on. Among them
// begins at most one part that is not its run's first, and at most one run of several parts.
struct RowParts {
  RowLists lists;
  int64_t count;        // positions
  uint32_t table_rows;  // the row of positions that look up none
  int64_t dim;
  float* first;  // [slots, dim], the sum of the first part of the run of several that begins there
  float* later;  // [slots, dim], the sum of the part that begins there and is no first

  // None where no run can have several parts.
  LONGCLOCK_INLINE int64_t slots() const {
    return count <= kRowPart ? 0 : (count + kRowPart - 1) / kRowPart;
  }

  struct Part {
    uint32_t row;
    int64_t begin;      // -1: there is none
    int64_t run_begin;  // of its run
  };

  // Whether the run of `row` has parts after the one at `begin`.
  __device__ __forceinline__ bool goes_on(int64_t begin, uint32_t row) const {
    const int64_t next = begin + kRowPart;
    return next < count && lists.rows[next] == row;
  }

  // The part of a slot that is not its run's first. Slots that have none find out by a few loads.
  __device__ __forceinline__ Part later_part(int64_t slot) const {
    const uint32_t* const rows = lists.rows;
    const int64_t at = slot * kRowPart;
    constexpr int64_t kHalf = kRowPart / 2;
    const uint32_t row = rows[at];
    const Part none = {row, -1, -1};
    if (row == table_rows || at == 0 || rows[at - 1] != row) return none;
    // A run of more than a part goes on for half of one to one side.
    const bool behind = at >= kHalf && rows[at - kHalf] == row;
    if (!behind && !(at + kHalf < count && rows[at + kHalf] == row)) return none;
    int64_t low = 0, high = at - 1;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (rows[middle] < row) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const int64_t begin = low + (at - low + kRowPart - 1) / kRowPart * kRowPart;
    if (begin >= count || rows[begin] != row) return none;
    return {row, begin, low};
  }
};

// Sorts the positions and cuts memory for their parts; nothing is launched where the workspace
// only counts. This, and the launch below, returns a cudaError_t: 0 is success.
int launch_row_parts(const RowLookups& lookups, int64_t dim, Workspace* workspace, RowParts* parts,
                     CudaStream stream);

// To `out` [N, dim] the sums of the rows that have several parts.
int launch_add_row_parts(const RowParts& parts, DType dtype, void* out, CudaStream stream);

}  // namespace longclock
