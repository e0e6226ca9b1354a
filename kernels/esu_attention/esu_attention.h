// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "longclock/common/cuda.h"
#include "longclock/search/behaviours.h"
#include "longclock/search/device_search.h"

namespace longclock {

// alpha_ik = u_i . z_k + s(delta_k / unit), p_i = softmax over the valid k,
// context_i = sum over k of p_ik [z_k ; phi(delta_k / unit) of each clock].
// z_k is a row of z, and behind it those of its features.
struct EsuAttentionCommonParams {
  // Behaviour k of query q lies at position q * K + k, and its mask is `valid`; or where
  // `positions` says, among the behaviours of all histories, and there is no mask.
  Behaviours behaviours;
  const int64_t* positions;  // [Q, K], below 0: not valid; or none
  int64_t z_query_stride;    // elements, without ids and positions
  IntArray query_time;       // [Q], seconds
  int64_t heads;             // n
  int64_t k;                 // K
  int64_t dim;               // L, columns of z and of all features
  int64_t width;             // of a row of the context, L + 4 C
  float* context;            // [Q, n, L + 4 C], C clocks; 0 where a query has no valid behaviour
  float* softmax;            // [Q, n, 2], the largest alpha, and the log of the sum of
                             // exp(alpha - largest); kept for the backward
};

struct EsuAttentionParams : EsuAttentionCommonParams {
  const float* u;    // [Q, n, round_up(L, 16)], padded with zeros
  int64_t u_stride;  // elements from head to head, a multiple of 16
};

// Recomputes alpha from z, in the one pass over z that the gradients need anyway.
struct EsuAttentionBackwardParams {
  EsuAttentionParams forward;  // with its outputs
  const float* grad;           // [Q, n, L + 4 C]
  float* u_grad;               // [Q, n, L], or none
  void* z_grad;                // [Q, K, L], z's dtype, 0 where not valid; or none
  float* s_grad;               // [Q, K], the gradient of s; or none
  int32_t* s_delta;            // [C, Q, K], seconds
  int64_t pairs;               // Q K
  bool stream;                 // write z_grad past the caches: where it does not fit them
};

// The gradient of a table from that of the rows gathered from it, summed up in order of positions:
// on the CPU in the table's dtype, as nn.Embedding does, on CUDA in fp32.
struct EsuTableGradParams {
  const void* z_grad;    // [count, L], unit stride, 0 where not valid
  int64_t z_row_stride;  // elements
  IntArray ids;          // [count], or [T]; one outside [0, N) has no row to add to
  const uint8_t* valid;  // [count], or none
  int64_t count;
  int64_t dim;                         // L
  DType dtype;                         // of z_grad and the table
  int64_t table_rows;                  // N
  void* table_grad;                    // [N, L]; zeros on the CPU
  const int64_t* positions = nullptr;  // [count], of ids, below 0: not valid; or none
  int64_t behaviour_count = 0;         // T, where positions are given
};

// Queries [begin, end).
void esu_attention_cpu(const EsuAttentionParams& params, int64_t begin, int64_t end);
void esu_attention_backward_cpu(const EsuAttentionBackwardParams& params, int64_t begin,
                                int64_t end);
// Rows [begin, end) of the table.
void esu_table_grad_cpu(const EsuTableGradParams& params, int64_t begin, int64_t end);

// Behaviours [0, K) are cut into parts of this many, each done by blocks of its own; a second
// kernel then adds up what they found, in order.
constexpr int64_t kEsuPart = 640;
LONGCLOCK_INLINE constexpr int64_t esu_parts(int64_t k) {
  return k <= kEsuPart ? 1 : (k + kEsuPart - 1) / kEsuPart;
}
LONGCLOCK_INLINE constexpr int64_t esu_head_groups(int64_t heads) { return (heads + 3) / 4; }

// Without tables of s, which is computed on the spot. An id outside [0, N) makes its row NaN.
struct DeviceEsuAttentionParams : EsuAttentionCommonParams {
  int64_t queries;          // Q
  const void* u;            // [Q, n, L], z's dtype or fp32, which is rounded to z's
  bool u_is_float;          // fp32
  int64_t table_rows;       // N, where ids are given
  int64_t behaviour_count;  // T, the behaviours among which positions lie
  bool check;               // assert that ids are in [0, N), and positions below T
  float* partial;           // esu_partial_size() floats
};

// What a part leaves to the second kernel, of each head: L + 4 C weighted sums, the largest alpha,
// the sum of exp(alpha - largest), and whether anything was valid.
LONGCLOCK_INLINE constexpr int64_t esu_partial_width(int64_t width) { return width + 3; }
LONGCLOCK_INLINE constexpr int64_t esu_partial_size(int64_t queries, int64_t heads, int64_t k,
                                                    int64_t width) {
  const int64_t parts = esu_parts(k);
  return parts == 1 ? 0 : queries * parts * heads * esu_partial_width(width);
}

struct DeviceEsuAttentionBackwardParams {
  DeviceEsuAttentionParams forward;  // with its outputs; `partial` is not used
  const float* grad;                 // [Q, n, L + 4 C]
  void* u_grad;                      // [Q, n, L], u's dtype; or none
  void* z_grad;                      // [Q, K, L], z's dtype, 0 where not valid; or none
  float* s_grad;                     // [Q, K], the gradient of s; or none
  int32_t* s_delta;                  // [C, Q, K], seconds
  float* u_partial;                  // esu_u_partial_size() floats
  float* weights;                    // esu_weights_size() floats
};

LONGCLOCK_INLINE constexpr int64_t esu_u_partial_size(int64_t queries, int64_t heads, int64_t k,
                                                      int64_t dim) {
  return esu_parts(k) == 1 ? 0 : queries * esu_parts(k) * heads * dim;
}
// More than four heads: p and ds of every behaviour and head wait for the kernel that adds the
// heads up. Queries are done in tasks, so that this stays small however many there are.
LONGCLOCK_INLINE constexpr int64_t esu_query_weights(int64_t heads, int64_t k) {
  return heads <= 4 ? 0 : k * esu_head_groups(heads) * 8;
}
LONGCLOCK_INLINE constexpr int64_t esu_task_queries(int64_t queries, int64_t heads, int64_t k) {
  constexpr int64_t kFloats = int64_t{1} << 24;  // 64 MB
  const int64_t each = esu_query_weights(heads, k);
  const int64_t task_queries = each == 0 ? queries : kFloats / each;
  return task_queries < 1 ? 1 : task_queries < queries ? task_queries : queries;
}
LONGCLOCK_INLINE constexpr int64_t esu_weights_size(int64_t queries, int64_t heads, int64_t k) {
  return esu_task_queries(queries, heads, k) * esu_query_weights(heads, k);
}

// Where what a search found lies, and the time of every query.
struct DeviceEsuPositionsParams {
  DeviceSearchParams search;  // as far as its layout goes
  const int64_t* found;       // [Q, K], from the start of each query's history, -1: nothing
  int64_t k;                  // K
  int64_t* positions;         // [Q, K], -1: nothing, or not valid
  int64_t* query_time;        // [Q], seconds
};

// All queries, on the device of the stream. Each returns a cudaError_t: 0 is success. Pointers are
// the device's; the launchers allocate nothing and wait for nothing.
int launch_esu_positions(const DeviceEsuPositionsParams& params, CudaStream stream);
int launch_esu_attention(const DeviceEsuAttentionParams& params, CudaStream stream);
int launch_esu_attention_backward(const DeviceEsuAttentionBackwardParams& params,
                                  CudaStream stream);
// Fewer than 2^32 positions and rows.
int esu_table_grad_bytes(const EsuTableGradParams& params, int64_t* bytes);
int launch_esu_table_grad(const EsuTableGradParams& params, void* workspace, CudaStream stream);

}  // namespace longclock
