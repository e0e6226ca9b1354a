// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/search/behaviours.h"
#include "longclock/search/device_search.h"
#include "longclock/selection/selection.h"

namespace longclock {

// A search for the k best behaviours of every query, whatever it compares. A long sequence may be
// cut into parts, searched on their own and merged: the same result.
struct SearchTopKParams {
  Behaviours behaviours;
  const Group* groups;
  const SearchTask* tasks;
  int64_t k;           // 0..2048
  int64_t parts;       // at most, of any group
  TopKEntry* entries;  // [Q, parts, k], zeros, a part fills its own; none where parts is 1
  float* scores;       // [Q, k]
  int64_t* indices;    // [Q, k], from the start of the sequence or window; -1 for padding
};

// Queries [begin, end): merges the parts into the outputs.
void search_merge_cpu(const SearchTopKParams& params, int64_t begin, int64_t end);

struct DeviceSearchTopKParams {
  DeviceSearchParams search;
  int64_t k;           // 0..2048
  int64_t parts;       // of every query's behaviours: topk_parts()
  TopKEntry* entries;  // [Q, parts, k]; none where parts is 1
  float* scores;       // [Q, k]
  int64_t* indices;    // [Q, k], from the start of the sequence or window; -1 for padding
  bool only_alone;     // queries whose window no neighbour sees: the others are done
};

}  // namespace longclock
