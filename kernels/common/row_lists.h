// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "longclock/common/cuda.h"
#include "longclock/common/dtype.h"

namespace longclock {

// Which row of a table [N, ...] each position looks up.
struct RowLookups {
  IntArray ids;                     // [count], or [ids_count] where `ids_at` is given
  const uint8_t* mask;              // [count], 0: looks up none; or none
  int64_t count;                    // less than 2^32
  int64_t table_rows;               // N, less than 2^32
  const int64_t* ids_at = nullptr;  // [count], where in ids each looks, outside them: none; or none
  int64_t ids_count = 0;
};

// The positions, sorted by row: those of a row follow each other, in order.
struct RowLists {
  const uint32_t* rows;       // [count]; N where masked out or where the id is not of the table
  const uint32_t* positions;  // [count]
};

// Rows and positions to be sorted, and the memory for that; `rows` has no bits above `bits`.
struct UnsortedRows {
  int64_t count;
  int bits;
  uint32_t *rows, *positions;                // [count]
  uint32_t *sorted_rows, *sorted_positions;  // [count]
  char* memory;
  size_t bytes;
};

// Cuts device memory into arrays; without memory it counts the bytes.
struct Workspace {
  char* memory;
  int64_t used = 0;

  template <class T>
  T* take(int64_t count) {
    T* const array = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
    used += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return array;
  }
};

// Cuts the arrays for rows from 0 to most_rows, for the caller to fill. Returns a cudaError_t, as
// all here do: 0 is success.
int take_unsorted_rows(int64_t count, int64_t most_rows, Workspace* workspace,
                       UnsortedRows* unsorted);
// Sorts them, stably.
int launch_sort_rows(const UnsortedRows& unsorted, RowLists* lists, CudaStream stream);

// Fills lists that lie in the workspace; nothing is launched where it only counts.
int launch_row_lists(const RowLookups& lookups, Workspace* workspace, RowLists* lists,
                     CudaStream stream);

}  // namespace longclock
