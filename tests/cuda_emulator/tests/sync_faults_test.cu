// SPDX-License-Identifier: Apache-2.0
// Order: races within a block and between blocks, barriers, member masks, cp.async.
// clang-format off: a mark must stay on the line of its fault.
#include <cuda_pipeline.h>

#include "faults.h"

namespace longclock::emulator {
namespace {

constexpr int kThreads = 64;

template <bool kFaulty>
__global__ void missing_barrier(int* out) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = threadIdx.x;
  if (!kFaulty) __syncthreads();
  out[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];  // fault: missing_barrier
}

// The next round's write may overtake this round's read.
template <bool kFaulty>
__global__ void missing_second_barrier(int* out) {
  __shared__ int tile[kThreads];
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    tile[threadIdx.x] = threadIdx.x + round;  // fault: missing_second_barrier
    __syncthreads();
    sum += tile[(threadIdx.x + 33) % kThreads];
    if (!kFaulty) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

// Lanes of one warp are not in lockstep.
template <bool kFaulty>
__global__ void missing_syncwarp(int* out) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = threadIdx.x;
  if (!kFaulty) __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];  // fault: missing_syncwarp
}

// A shuffle exchanges registers; it does not order memory.
template <bool kFaulty>
__global__ void shuffle_is_no_fence(int* out) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = threadIdx.x;
  int other = __shfl_xor_sync(0xffffffffu, threadIdx.x, 1);
  if (!kFaulty) __syncwarp();
  out[threadIdx.x] = tile[other];  // fault: shuffle_is_no_fence
}

template <bool kFaulty>
__global__ void unordered_increment(int* out) {
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  if (kFaulty) {
    total += 1;  // fault: unordered_increment
  } else {
    atomicAdd(&total, 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) *out = total;
}

template <bool kFaulty>
__global__ void different_values_to_one_place(int* out) {
  __shared__ int last;
  if (!kFaulty || threadIdx.x < 32) {
    if (threadIdx.x < 32) last = kFaulty ? threadIdx.x : 7;  // fault: different_values_to_one_place
  }
  __syncthreads();
  out[threadIdx.x] = last;
}

template <bool kFaulty>
__global__ void plain_read_of_atomic(int* out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  if (!kFaulty) __syncthreads();
  out[threadIdx.x] = count;  // fault: plain_read_of_atomic
}

// Each half of the block has a named barrier; the halves exchange data all the same.
template <bool kFaulty>
__global__ void barrier_of_half_the_block(int* out) {
  __shared__ int tile[128];
  tile[threadIdx.x] = threadIdx.x;
  if (kFaulty) {
    if (threadIdx.x < 64) {
      asm volatile("bar.sync 1, 64;" ::: "memory");
    } else {
      asm volatile("bar.sync 2, 64;" ::: "memory");
    }
  } else {
    asm volatile("bar.sync 1, 128;" ::: "memory");
  }
  out[threadIdx.x] = tile[127 - threadIdx.x];  // fault: barrier_of_half_the_block
}

template <bool kFaulty>
__global__ void blocks_write_one_place(int* out) {
  if (threadIdx.x == 0) {
    if (kFaulty) {
      *out = blockIdx.x;  // fault: blocks_write_one_place
    } else {
      atomicMax(out, blockIdx.x);
    }
  }
}

template <bool kFaulty>
__global__ void neighbour_of_another_block(int* data, int* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int n = gridDim.x * blockDim.x;
  data[i] = i;
  __syncthreads();
  const int at = kFaulty ? (i + 1) % n : blockIdx.x * blockDim.x + (threadIdx.x + 1) % blockDim.x;
  out[i] = data[at];  // fault: neighbour_of_another_block
}

// The last block to finish adds the others' sums. Without the fence they may not be there yet.
template <bool kFaulty>
__global__ void last_block_without_fence(int* partial, unsigned* finished, int* out) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = blockIdx.x + 1;
    if (!kFaulty) __threadfence();
    last = atomicInc(finished, gridDim.x - 1) == gridDim.x - 1;
    if (!kFaulty) __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    int sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];  // fault: last_block_without_fence
    *out = sum;
  }
}

// One thread publishes what the whole block wrote.
template <bool kFaulty>
__global__ void publish_without_barrier(int* data, int* flag, int* out) {
  const int n = blockDim.x;
  if (blockIdx.x == 0) {
    data[threadIdx.x] = threadIdx.x;
    if (!kFaulty) __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicExch(flag, 1);
    }
  } else {
    if (threadIdx.x == 0) {
      while (atomicAdd(flag, 0) == 0) {
      }
      __threadfence();
    }
    __syncthreads();
    out[threadIdx.x] = data[n - 1 - threadIdx.x];  // fault: publish_without_barrier
  }
}

template <bool kFaulty>
__global__ void barrier_in_divergent_branch(int* out) {
  if (!kFaulty || threadIdx.x < 16) {
    __syncthreads();  // fault: barrier_in_divergent_branch
  }
  out[threadIdx.x] = 1;
}

template <bool kFaulty>
__global__ void barrier_by_one_warp(int* out) {
  if (!kFaulty || threadIdx.x >= 32) {
    __syncthreads();  // fault: barrier_by_one_warp
  }
  out[threadIdx.x] = 1;
}

template <bool kFaulty>
__global__ void barriers_of_two_branches(int* out) {
  if (!kFaulty) {
    __syncthreads();
  } else if (threadIdx.x < 32) {
    out[threadIdx.x] = 2;
    __syncthreads();
  } else {
    atomicAdd(out + threadIdx.x, 3);
    __syncthreads();  // fault: barriers_of_two_branches
  }
  atomicAdd(out + threadIdx.x, 1);
}

template <bool kFaulty>
__global__ void barrier_count_too_high(int* out) {
  if (kFaulty) {
    asm volatile("bar.sync 3, 96;" ::: "memory");  // fault: barrier_count_too_high
  } else {
    asm volatile("bar.sync 3, 64;" ::: "memory");
  }
  out[threadIdx.x] = 1;
}

template <bool kFaulty>
__global__ void return_before_barrier(int* out, int n) {
  if (kFaulty && static_cast<int>(threadIdx.x) >= n) return;
  __syncthreads();  // fault: return_before_barrier
  if (static_cast<int>(threadIdx.x) < n) out[threadIdx.x] = 1;
}

template <bool kFaulty>
__global__ void shuffle_in_divergent_branch(int* out, int n) {
  int value = threadIdx.x;
  if (kFaulty) {
    if (static_cast<int>(threadIdx.x) % 32 < n) {
      value += __shfl_down_sync(0xffffffffu, value, 1);  // fault: shuffle_in_divergent_branch
      atomicAdd(out, 1);
    }
    __syncwarp();
  } else {
    value += __shfl_down_sync(0xffffffffu, value, 1);
  }
  out[threadIdx.x] = value;
}

template <bool kFaulty>
__global__ void mask_without_the_caller(int* out, unsigned mask) {
  const unsigned ballot = __ballot_sync(kFaulty ? mask : 0xffffffffu, threadIdx.x & 1);  // fault: mask_without_the_caller
  out[threadIdx.x] = ballot;
}

template <bool kFaulty>
__global__ void async_copy_without_wait(const int* in, int* out) {
  __shared__ int tile[kThreads];
  __pipeline_memcpy_async(tile + threadIdx.x, in + threadIdx.x, 4);
  __pipeline_commit();
  if (!kFaulty) __pipeline_wait_prior(0);
  out[threadIdx.x] = tile[threadIdx.x];  // fault: async_copy_without_wait
}

// Two stages are in flight; waiting for all but one leaves the second.
template <bool kFaulty>
__global__ void async_copy_waits_for_too_few(const int* in, int* out) {
  __shared__ int tile[2][kThreads];
  for (int stage = 0; stage < 2; ++stage) {
    __pipeline_memcpy_async(&tile[stage][threadIdx.x], in + threadIdx.x, 4);
    __pipeline_commit();
  }
  __pipeline_wait_prior(kFaulty ? 1 : 0);
  out[threadIdx.x] = tile[1][threadIdx.x];  // fault: async_copy_waits_for_too_few
}

// A wait is of the thread that copied: the others need the barrier as well.
template <bool kFaulty>
__global__ void async_copy_of_a_neighbour(const int* in, int* out) {
  __shared__ int tile[kThreads];
  __pipeline_memcpy_async(tile + threadIdx.x, in + threadIdx.x, 4);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  if (!kFaulty) __syncthreads();
  out[threadIdx.x] = tile[(threadIdx.x + 32) % kThreads];  // fault: async_copy_of_a_neighbour
}

class SyncFaultTest : public FaultTest {};
TEST_P(SyncFaultTest, IsCaughtAndItsTwinIsSilent) { check(__FILE__); }

#define CASE(name, kind, grid, block, ...)                                                             \
  FaultCase {                                                                                          \
    #name, kind, with_zeros<int>(512, [](bool faulty, int* data) {                                     \
      LAUNCH(name, grid, block, 0, __VA_ARGS__)(faulty);                                               \
    }),                                                                                                \
        719                                                                                            \
  }

INSTANTIATE_TEST_SUITE_P(
    Corpus, SyncFaultTest,
    testing::Values(
        CASE(missing_barrier, "race", 1, kThreads, data),
        CASE(missing_second_barrier, "race", 1, kThreads, data),
        CASE(missing_syncwarp, "race", 1, kThreads, data),
        CASE(shuffle_is_no_fence, "race", 1, kThreads, data),
        CASE(unordered_increment, "race", 1, kThreads, data),
        CASE(different_values_to_one_place, "race", 1, kThreads, data),
        CASE(plain_read_of_atomic, "race", 1, kThreads, data),
        CASE(barrier_of_half_the_block, "race", 1, 128, data),
        CASE(blocks_write_one_place, "race", 4, kThreads, data),
        CASE(neighbour_of_another_block, "race", 3, kThreads, data, data + 256),
        CASE(last_block_without_fence, "race", 6, kThreads, data, reinterpret_cast<unsigned*>(data + 100), data + 101),
        CASE(publish_without_barrier, "race", 2, kThreads, data, data + 100, data + 128),
        CASE(barrier_in_divergent_branch, "divergent barrier", 1, kThreads, data),
        CASE(barrier_by_one_warp, "divergent barrier", 1, kThreads, data),
        CASE(barriers_of_two_branches, "mismatched barrier", 1, kThreads, data),
        CASE(barrier_count_too_high, "deadlock", 1, kThreads, data),
        CASE(return_before_barrier, "divergent barrier", 1, kThreads, data, 40),
        CASE(shuffle_in_divergent_branch, "lanes missing from the mask", 1, kThreads, data, 20),
        CASE(mask_without_the_caller, "lanes missing from the mask", 1, kThreads, data, 0xffffu),
        CASE(async_copy_without_wait, "asynchronous copy not waited for", 1, kThreads, data, data + 256),
        CASE(async_copy_waits_for_too_few, "asynchronous copy not waited for", 1, kThreads, data, data + 256),
        CASE(async_copy_of_a_neighbour, "race", 1, kThreads, data, data + 256)),
    fault_name_of);

}  // namespace
}  // namespace longclock::emulator
