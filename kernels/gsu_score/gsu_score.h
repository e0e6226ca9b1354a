// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/common/row_lists.h"
#include "longclock/search/behaviours.h"
#include "longclock/search/device_search.h"

namespace longclock {

// Tasks of multiples of this many queries are whole tiles at every SIMD level.
constexpr int64_t kQueryTile = 12;

// score = scale * key . query + s(delta(key_time, query_time) / unit), -inf where not valid.
struct GsuScoreParams {
  Behaviours behaviours;
  const float* queries;  // as of DotSearchParams
  int64_t query_stride;  // elements, a multiple of 16
  const Group* groups;
  const SearchTask* tasks;  // cover every query of every group, and all of its behaviours
  float scale;
  float* scores;  // by Group::out_begin and out_stride
  bool stream;    // write past the caches: for outputs that do not fit them
};

// Positions of the keys whose gradients are summed by one task.
constexpr int64_t kKeyGradPart = 1024;

// The gradients, each by tasks of its own that write apart from each other: any number of them, on
// any threads, gives the same bits.
struct GsuScoreBackwardParams {
  Behaviours behaviours;
  const float* queries;
  int64_t query_stride;
  const Group* groups;
  int64_t group_count;
  int64_t most_queries;     // of a group
  const SearchTask* tasks;  // whole groups
  float scale;
  const float* grad;           // laid out as the scores
  float* query_grad;           // [Q, D]
  void* key_grad;              // [rows, D], contiguous, the keys' dtype; with ids given as zeros
  const int64_t* part_begin;   // [parts + 1]: part c of kKeyGradPart positions is seen by groups
  const int64_t* part_groups;  // part_groups[part_begin[c]] to [part_begin[c + 1]], in order
  int64_t positions;           // of the keys
  const int64_t* s_begin;      // [groups], elements from s_grad to a group's first behaviour
  float* s_grad;               // one value a behaviour of a group: the sum over its queries
  int32_t* s_delta;            // its deltas, [clocks, s_count]
  int64_t s_count;
};

// Tasks [begin, end).
void gsu_score_cpu(const GsuScoreParams& params, int64_t begin, int64_t end);
// Tasks [begin, end).
void gsu_score_query_grad_cpu(const GsuScoreBackwardParams& params, int64_t begin, int64_t end);
// Parts [begin, end) of the keys' positions, without ids.
void gsu_score_key_grad_cpu(const GsuScoreBackwardParams& params, int64_t begin, int64_t end);
// Rows [begin, end) of the table, with ids.
void gsu_score_table_grad_cpu(const GsuScoreBackwardParams& params, int64_t begin, int64_t end);
// Groups [begin, end).
void gsu_score_s_grad_cpu(const GsuScoreBackwardParams& params, int64_t begin, int64_t end);

// Which windows hold a position, of any that overlap, are empty, and come in any order: sorted by
// start, those of one start by index, and over them a tree of their latest ends. A warp asks 32
// nodes at a time whether a window below may hold the position, and goes down only where one may.
// What it finds comes in that order, which depends on the windows alone.
struct WindowTree {
  static constexpr int64_t kNode = 32 * 32;  // windows of a node of the top level

  int64_t count;
  RowLists sorted;      // starts >> shift, and the windows
  int shift;            // so that starts fit 32 bits
  int64_t* end;         // [count], of each, in that order
  int64_t* end_of_32;   // the latest of each 32
  int64_t* end_of_all;  // the latest of each kNode
};

struct DeviceGsuScoreBackwardParams {
  DeviceSearchParams search;
  const float* grad;     // [search.score_count], laid out as the scores
  int sums;              // gsu_score_query_sums(): sums of a query's gradient
  int parts;             // and the blocks that share them
  float* query_partial;  // [Q, sums, D], where parts > 1
  void* query_grad;      // [Q, D], the query's dtype
  void* key_grad;        // [rows, D], contiguous, the keys' dtype
  WindowTree windows;    // for the gradient of keys that windows see
  int64_t s_count;       // S * M; T for ragged; for windows T each, or score_count
  float* s_grad;         // [s_count], zeros where no sequence has a behaviour
  int32_t* s_delta;      // [clocks, s_count]
  bool s_of_windows;     // whether s_count is T for each window
};

// On the device of the stream. Each returns a cudaError_t: 0 is success. The launchers allocate
// nothing and wait for nothing.
// score_begin [Q + 1], behind it room for kScoreBeginParts.
constexpr int kScoreBeginParts = 256;
int launch_score_begin(const DeviceSearchParams& search, int64_t* score_begin, CudaStream stream);
int launch_gsu_score(const DeviceSearchParams& search, float* scores, CudaStream stream);
int gsu_score_query_sums(const DeviceSearchParams& search, int* sums, int* parts);
int launch_gsu_score_query_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream);
// The tree in memory of as many bytes, which the gradients of keys then read.
int gsu_score_windows_bytes(const DeviceSearchParams& search, int64_t* bytes);
int launch_gsu_score_windows(const DeviceSearchParams& search, void* memory, WindowTree* windows,
                             CudaStream stream);
// Without ids.
int launch_gsu_score_key_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream);
// With ids; fewer than 2^32 rows and positions.
int gsu_score_table_grad_bytes(const DeviceGsuScoreBackwardParams& params, int64_t* bytes);
int launch_gsu_score_table_grad(const DeviceGsuScoreBackwardParams& params, void* workspace,
                                CudaStream stream);
int launch_gsu_score_s_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream);

}  // namespace longclock
