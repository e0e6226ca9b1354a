// SPDX-License-Identifier: Apache-2.0
// What programs expect of the scheduler: lanes and blocks that wait for one another make progress,
// divergent lanes meet again, results do not depend on the order of blocks and warps.
#include <cooperative_groups.h>

#include <numeric>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

// A lock taken by the lanes of one warp in turn needs independent thread scheduling.
__global__ void spin_lock_kernel(int* lock, volatile int* total) {
  for (;;) {
    if (atomicCAS(lock, 0, 1) == 0) {
      __threadfence();
      *total = *total + 1;
      __threadfence();
      atomicExch(lock, 0);
      break;
    }
  }
}

__global__ void grid_sync_kernel(int* data, int* out) {
  const auto grid = cooperative_groups::this_grid();
  const int i = static_cast<int>(grid.thread_rank());
  const int n = static_cast<int>(grid.size());
  data[i] = i;
  grid.sync();
  out[i] = data[n - 1 - i];
}

__global__ void groups_kernel(int* out) {
  namespace cg = cooperative_groups;
  const auto tile = cg::tiled_partition<8>(cg::this_thread_block());
  int sum = static_cast<int>(threadIdx.x);
  for (int offset = tile.size() / 2; offset > 0; offset /= 2) sum += tile.shfl_xor(sum, offset);
  if (threadIdx.x % 3 == 0) {
    const auto active = cg::coalesced_threads();
    sum += 1000 * static_cast<int>(active.size());
  }
  out[threadIdx.x] = sum;
}

__device__ int ackermann(int m, int n) {
  if (m == 0) return n + 1;
  if (n == 0) return ackermann(m - 1, 1);
  return ackermann(m - 1, ackermann(m, n - 1));
}
__global__ void recursion_kernel(int* out) { out[threadIdx.x] = ackermann(2, threadIdx.x % 4); }

// Odd lanes vote again at once, and wait with their mask for the even ones, which first need 64
// bits for each lane where the others' masks would lie, did registers of two widths share a row.
__global__ void vote_again_kernel(unsigned* out) {
  unsigned votes = 0;
  asm volatile(
      "{\n"
      "  .reg .pred odd, again;\n"
      "  .reg .b32 mask, turn, bit;\n"
      "  .reg .b64 wide;\n"
      "  and.b32 bit, %1, 1;\n"
      "  setp.ne.u32 odd, bit, 0;\n"
      "  mov.u32 turn, 0;\n"
      "vote_again:\n"
      "  mov.u32 mask, -1;\n"
      "  vote.sync.ballot.b32 %0, odd, mask;\n"
      "  add.u32 turn, turn, 1;\n"
      "  setp.gt.u32 again, turn, 3;\n"
      "  @again bra voted;\n"
      "  @odd bra vote_again;\n"
      "  cvt.u64.u32 wide, %1;\n"
      "  mul.lo.u64 wide, wide, wide;\n"
      "  cvt.u32.u64 bit, wide;\n"
      "  add.u32 turn, turn, bit;\n"
      "  sub.u32 turn, turn, bit;\n"
      "  bra vote_again;\n"
      "voted:\n"
      "}\n"
      : "+r"(votes)
      : "r"(threadIdx.x));
  out[threadIdx.x] = votes;
}

struct Shape {
  __device__ virtual int area() const = 0;
};
struct Square : Shape {
  int side;
  __device__ explicit Square(int s) : side(s) {}
  __device__ int area() const override { return side * side; }
};
struct Strip : Shape {
  int length;
  __device__ explicit Strip(int l) : length(l) {}
  __device__ int area() const override { return length; }
};
__global__ void virtual_kernel(int* out) {
  Square square(threadIdx.x);
  Strip strip(threadIdx.x);
  const Shape* shape = threadIdx.x % 2 == 0 ? static_cast<const Shape*>(&square) : &strip;
  out[threadIdx.x] = shape->area();
}

__global__ void switch_kernel(const int* in, int* out) {
  int value = in[threadIdx.x];
  switch (value) {
    case 0:
      value = 100;
      break;
    case 1:
      value = value * 7 - 3;
      break;
    case 2:
      value = -value;
      break;
    case 3:
      value = value << 5;
      break;
    case 4:
      value = value % 3;
      break;
    case 5:
      value = 55;
      break;
    case 6:
      value = value * value;
      break;
    default:
      value = 1;
  }
  out[threadIdx.x] = value;
}

// Each lane loops its own number of times: all meet after the loop.
__global__ void collatz_kernel(int* steps, unsigned* together) {
  unsigned n = threadIdx.x + 1;
  int count = 0;
  while (n != 1) {
    n = n % 2 == 0 ? n / 2 : 3 * n + 1;
    ++count;
  }
  together[threadIdx.x] = __activemask();
  steps[threadIdx.x] = count;
}

__global__ void float_sum_kernel(const float* in, float* out, int n) {
  __shared__ float partial[256];
  float sum = 0.0f;
  for (int i = threadIdx.x; i < n; i += 256) sum += in[i];
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}

__global__ void printing_kernel() {
  if (threadIdx.x == 1) printf("thread %d of %s: %.2f %lld\n", threadIdx.x, "two", 1.5, 1ll << 40);
}

class SchedulingTest : public EmulatorTest {};

TEST_F(SchedulingTest, ASpinLockWithinAWarp) {
  const DeviceVector<int> data(std::vector<int>(2, 0));
  spin_lock_kernel<<<2, 48>>>(data.data(), data.data() + 1);
  EXPECT_CUDA(cudaGetLastError());
  EXPECT_EQ(data.host()[1], 96);
}

TEST_F(SchedulingTest, GridSync) {
  constexpr int kBlocks = 12, kThreads = 64;
  const DeviceVector<int> data(kBlocks * kThreads), out(kBlocks * kThreads);
  int *in = data.data(), *to = out.data();
  void* arguments[] = {&in, &to};
  EXPECT_CUDA(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(grid_sync_kernel), kBlocks,
                                          kThreads, arguments, 0, nullptr));
  EXPECT_CUDA(cudaDeviceSynchronize());
  std::vector<int> expected(kBlocks * kThreads);
  std::iota(expected.rbegin(), expected.rend(), 0);
  EXPECT_EQ(out.host(), expected);
}

TEST_F(SchedulingTest, CooperativeGroups) {
  const DeviceVector<int> out(64);
  groups_kernel<<<1, 64>>>(out.data());
  EXPECT_CUDA(cudaGetLastError());
  const std::vector<int> values = out.host();
  for (int i = 0; i < 64; ++i) {
    const int tile = i / 8 * 8;
    EXPECT_EQ(values[i], tile * 8 + 28 + (i % 3 == 0 ? 11000 : 0)) << i;
  }
}

TEST_F(SchedulingTest, RecursionAndVirtualFunctionsOfDivergentLanes) {
  const DeviceVector<int> out(64);
  recursion_kernel<<<1, 64>>>(out.data());
  EXPECT_CUDA(cudaGetLastError());
  std::vector<int> values = out.host();
  for (int i = 0; i < 64; ++i) EXPECT_EQ(values[i], 2 * (i % 4) + 3) << i;
  virtual_kernel<<<1, 64>>>(out.data());
  EXPECT_CUDA(cudaGetLastError());
  values = out.host();
  for (int i = 0; i < 64; ++i) EXPECT_EQ(values[i], i % 2 == 0 ? i * i : i) << i;
}

TEST_F(SchedulingTest, SwitchStatements) {
  std::vector<int> in(64);
  for (int i = 0; i < 64; ++i) in[i] = i % 9;
  const int expected[] = {100, 4, -2, 96, 1, 55, 36, 1, 1};
  const DeviceVector<int> device(in), out(64);
  switch_kernel<<<1, 64>>>(device.data(), out.data());
  EXPECT_CUDA(cudaGetLastError());
  const std::vector<int> values = out.host();
  for (int i = 0; i < 64; ++i) EXPECT_EQ(values[i], expected[i % 9]) << i;
}

TEST_F(SchedulingTest, LanesMeetAfterALoop) {
  const DeviceVector<int> steps(32);
  const DeviceVector<unsigned> together(32);
  collatz_kernel<<<1, 32>>>(steps.data(), together.data());
  EXPECT_CUDA(cudaGetLastError());
  EXPECT_EQ(together.host(), std::vector<unsigned>(32, 0xffffffffu));
  EXPECT_EQ(steps.host()[26], 111);  // of 27
}

TEST_F(SchedulingTest, FloatSumsAreBitwiseTheSameForEverySeedAndThreadCount) {
  const DeviceVector<float> in(random_values<float>(5000, 3)), out(9);
  std::vector<float> first;
  for (const uint64_t seed : {0, 1, 2, 3}) {
    options().seed = seed;
    options().threads = 1 + seed % 3;
    float_sum_kernel<<<9, 256>>>(in.data(), out.data(), 5000);
    EXPECT_CUDA(cudaGetLastError());
    if (first.empty()) first = out.host();
    EXPECT_EQ(out.host(), first) << "seed " << seed;
  }
}

TEST_F(SchedulingTest, Printf) {
  testing::internal::CaptureStdout();
  printing_kernel<<<1, 2>>>();
  EXPECT_CUDA(cudaDeviceSynchronize());
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "thread 1 of two: 1.50 1099511627776\n");
}

TEST_F(SchedulingTest, RefusedLaunchesGiveTheDevicesError) {
  const DeviceVector<int> out(64);
  const auto launched = [&](dim3 grid, dim3 block, size_t shared) {
    groups_kernel<<<grid, block, shared>>>(out.data());
    return cudaGetLastError();
  };
  EXPECT_EQ(launched(1, 1025, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched(0, 32, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched(dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched(1, 64, 48 * 1024 + 1), cudaErrorInvalidValue);
  EXPECT_EQ(
      cudaFuncSetAttribute(groups_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 160 * 1024),
      cudaSuccess);
  EXPECT_EQ(launched(1, 64, 160 * 1024), cudaSuccess);
  EXPECT_EQ(
      cudaFuncSetAttribute(groups_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 164 * 1024),
      cudaErrorInvalidValue);
  cudaGetLastError();
  options().sm = 86;  // 99 KB
  EXPECT_EQ(launched(1, 64, 160 * 1024), cudaErrorInvalidValue);
}

TEST_F(SchedulingTest, LanesThatWaitKeepTheirValues) {
  const DeviceVector<unsigned> out(32);
  vote_again_kernel<<<1, 32>>>(out.data());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (const unsigned votes : out.host()) EXPECT_EQ(votes, 0xaaaaaaaau);
}

}  // namespace
}  // namespace longclock::emulator
