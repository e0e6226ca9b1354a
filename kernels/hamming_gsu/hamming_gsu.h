// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../block_topk/selection.h"
#include "../common/cuda.h"
#include "../common/simd_level.h"
#include "../gsu_score/behaviours.h"
#include "../gsu_score/device_search.h"

namespace longclock {

// The k behaviours whose hashes differ from the query's in the fewest bits: score = -(bits that
// differ), among equals the earliest. A long sequence may be cut into parts, searched on their own
// and merged: the same result.
struct HammingGsuParams {
  Behaviours behaviours;    // of words of 64 bits; without a time term
  const uint64_t* queries;  // [Q, dim]
  const Group* groups;
  const SearchTask* tasks;
  int64_t k;           // 0..2048
  int64_t parts;       // at most, of any group
  TopKEntry* entries;  // [Q, parts, k], zeros, a part fills its own; none where parts is 1
  float* scores;       // [Q, k]
  int64_t* indices;    // [Q, k], from the start of the sequence or window; -1 for padding
};

LONGCLOCK_DECLARE_LEVELS(void hamming_gsu(const HammingGsuParams&, int64_t begin, int64_t end))

// Tasks [begin, end): fills `entries`, or the outputs where parts is 1.
void hamming_gsu_cpu(const HammingGsuParams& params, int64_t begin, int64_t end);
// Queries [begin, end): merges the parts into the outputs.
void hamming_gsu_merge_cpu(const HammingGsuParams& params, int64_t begin, int64_t end);

struct HammingGsuDeviceParams {
  DeviceSearch search;
  int64_t k;           // 0..2048
  int64_t parts;       // of every query's behaviours: topk_parts()
  TopKEntry* entries;  // [Q, parts, k]; none where parts is 1
  float* scores;       // [Q, k]
  int64_t* indices;    // [Q, k], from the start of the sequence or window; -1 for padding
};

// All queries, on the device of the stream. Returns a cudaError_t: 0 is success. Allocates nothing
// and waits for nothing.
int launch_hamming_gsu(const HammingGsuDeviceParams& params, CudaStream stream);

}  // namespace longclock
