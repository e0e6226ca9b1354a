// SPDX-License-Identifier: Apache-2.0
// Many candidates of one request, on CUDA from sm_80 on. Two sweeps over the keys by tensor cores,
// neither of which writes a score matrix:
//   1. the first keeps of every block of eight behaviours its delegate, the best score;
//   2. the k best blocks of a query are chosen by their delegates: they hold its k best behaviours;
//   3. the second sweep writes the eight scores of each chosen block;
//   4. the k best of these are selected and sorted.
// docs/many-candidates.md proves it for every input. Wide rows, and those that do not lie in whole
// pieces of 16 bytes, come in panels of their columns. How much is written does not depend on the
// data. In fp32, whose products cost most, a sweep of another kind leaves all scores beside the
// delegates where the second-level cache keeps them: then there is no second sweep, and the k best
// are selected of what it left. One more kind writes all scores, for gsu_score.
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/query_task.h"
#include "longclock/search/search_topk.h"
#include "longclock/search/sweep_rows.h"

namespace longclock {

struct SweepParams {
  DeviceSearchParams search;
  SweepRows rows;
  const char* candidates;  // of the task, in panels; packed or the queries themselves
  int64_t k;               // 1..2048
  QueryTask task;          // as many queries as the workspace has room for
  unsigned blocks;         // of eight behaviours, of the longest sequence: the room of a query
  unsigned kept;           // of them the best, k or all: what is chosen of a query at most
  int multiprocessors;
  // s of every behaviour that is valid, and else kNobody, which the first sweep leaves to the
  // second: of the task's sequences one after the other, M each, or by position; or none.
  float* times;
  // [task_queries, blocks]: a block's best score as bits, or kNobody; later the place of a chosen
  // block in block_scores, or kNotChosen.
  uint32_t* delegates;
  uint32_t places;      // task_queries * kept: what is not less is none
  uint32_t* chosen;     // [task_queries, kept]: blocks in ascending order, then kNotChosen
  float* block_scores;  // [task_queries, kept, 8]; none where there is no second sweep
  float* stored;        // else: [task_queries, blocks, 8], all scores, -inf where not valid
  float* scores;        // [Q, k]; of Sweep::kAll all of every query, at scores_of()
  int64_t* indices;     // [Q, k], from the start of the sequence; -1 for padding
};

constexpr uint32_t kNotChosen = 0xffffffffu;
constexpr uint32_t kNobody = 0xffffffffu;  // a NaN that arithmetic does not make: its is 0x7fffffff

// How a search is cut into tasks.
struct SweepPlan {
  bool supported;        // else few_candidates.h or clock_gsu's kernel of one candidate does it
  bool stored;           // one sweep leaves all scores
  int64_t task_queries;  // of a task
  int64_t blocks;
  int64_t kept;   // of them, for each query
  int64_t times;  // that the first sweep leaves to the second
  SweepRows rows;
  int64_t workspace_words;  // of 32 bits
};

// Whether a search is for these kernels: enough candidates a sequence, and a device that has code
// of sm_80 or later. Returns a cudaError_t.
int plan_sweep_topk(const DeviceSearchParams& search, int64_t k, SweepPlan* plan);
// Whether all of its scores are. One task.
int plan_sweep_scores(const DeviceSearchParams& search, SweepPlan* plan);

// All queries; workspace: plan.workspace_words, aligned to 16 bytes. Returns a cudaError_t: 0 is
// success. Allocates nothing and waits for nothing.
int launch_sweep_topk(const DeviceSearchTopKParams& params, const SweepPlan& plan, void* workspace,
                      CudaStream stream);

// The scores of gsu_score, where they are for these kernels; as launch_gsu_score.
int launch_sweep_scores(const DeviceSearchParams& search, const SweepPlan& plan, void* workspace,
                        float* scores, CudaStream stream);

// One sweep, compiled for each dtype on its own.
enum class Sweep { kDelegates, kScores, kAll, kStored };
int launch_sweep_fp32(const SweepParams& params, Sweep sweep, CudaStream stream);
int launch_sweep_fp16(const SweepParams& params, Sweep sweep, CudaStream stream);
int launch_sweep_bf16(const SweepParams& params, Sweep sweep, CudaStream stream);
int launch_sweep_int8(const SweepParams& params, Sweep sweep, CudaStream stream);  // int8 queries
int launch_sweep_int8_floats(const SweepParams& params, Sweep sweep, CudaStream stream);
int launch_sweep_float8(const SweepParams& params, Sweep sweep, CudaStream stream);

}  // namespace longclock
