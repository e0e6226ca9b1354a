// SPDX-License-Identifier: Apache-2.0
// The two products of the gradient of many candidates, on tensor cores from sm_80 on: that of the
// queries, G K, and that of their sequence's keys, G^T Q, with the gradients of the scores G.
#pragma once

#include "longclock/gsu_score/gsu_score.h"

namespace longclock {

// A query's gradient has so many sums, added in order: block i of its behaviours belongs to sum
// i % kGradSums.
constexpr int kGradSums = 32;

// Whether a search is for these kernels: enough candidates a sequence, and rows of keys and queries
// in whole 16-byte pieces. Returns a cudaError_t.
int plan_many_grad(const DeviceSearchParams& search, bool* supported);

// As in gsu_score.h. Several sums have several parts, so that they lie in query_partial.
int many_query_grad_sums(const DeviceSearchParams& search, int* sums, int* parts);
int launch_many_query_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream);
int launch_many_key_grad(const DeviceGsuScoreBackwardParams& params, CudaStream stream);

}  // namespace longclock
