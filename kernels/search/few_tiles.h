// SPDX-License-Identifier: Apache-2.0
// How the queries that look at one sequence are cut into tiles of few candidates, on CUDA: a block
// reads each key of a part of the sequence once for up to 16 of them.
#pragma once

#include "longclock/search/query_task.h"

namespace longclock {

constexpr int kTileQueries = 16;  // of a tile: rows of a tensor core's A

struct FewTiles {
  int most;       // candidates of a tile
  int row_bytes;  // of a query in shared memory
  QueryTask task;
  int64_t count;  // of tiles, some of which may be empty
  int64_t parts;  // of every sequence
  bool windows;   // one a query: tiles are of equal ones next to each other, or empty
};

}  // namespace longclock
