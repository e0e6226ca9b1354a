// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../block_topk/selection.h"
#include "../common/cuda.h"
#include "../common/simd_level.h"
#include "../gsu_score/behaviours.h"
#include "../gsu_score/device_search.h"

namespace longclock {

// Tasks of multiples of this many candidates are whole panels at every SIMD level.
constexpr int64_t kCandidatePanel = 32;

// The k behaviours of best score = scale * key . query + s for every query; scores never leave the
// cache. A long sequence may be cut into parts, searched on their own and merged: same bits.
struct ClockGsuParams {
  Behaviours behaviours;
  const float* queries;  // [Q, round_up(D, 16)], padded with zeros
  int64_t query_stride;  // elements, a multiple of 16
  const Group* groups;
  const SearchTask* tasks;
  float scale;
  int64_t k;           // 0..2048
  int64_t parts;       // at most, of any group
  TopKEntry* entries;  // [Q, parts, k], zeros, a part fills its own; none where parts is 1
  float* scores;       // [Q, k]
  int64_t* indices;    // [Q, k], from the start of the sequence or window; -1 for padding
};

LONGCLOCK_DECLARE_BF16_LEVELS(void clock_gsu(const ClockGsuParams&, int64_t begin, int64_t end))

// Tasks [begin, end): fills `entries`, or the outputs where parts is 1.
void clock_gsu_cpu(const ClockGsuParams& params, int64_t begin, int64_t end);
// Queries [begin, end): merges the parts into the outputs.
void clock_gsu_merge_cpu(const ClockGsuParams& params, int64_t begin, int64_t end);

struct ClockGsuDeviceParams {
  DeviceSearch search;
  int64_t k;           // 0..2048
  int64_t parts;       // of every query's behaviours: topk_parts()
  TopKEntry* entries;  // [Q, parts, k]; none where parts is 1
  float* scores;       // [Q, k]
  int64_t* indices;    // [Q, k], from the start of the sequence or window; -1 for padding
};

// All queries, on the device of the stream. Returns a cudaError_t: 0 is success. Allocates nothing
// and waits for nothing.
int launch_clock_gsu(const ClockGsuDeviceParams& params, CudaStream stream);

}  // namespace longclock
