// SPDX-License-Identifier: Apache-2.0
// Counters of kernels whose counts follow from their text.
#include <string>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

constexpr unsigned kThreads = 256, kBlocks = 4, kWarps = kBlocks * kThreads / 32,
                   kAll = kBlocks * kThreads;

class CountersTest : public EmulatorTest {
 protected:
  // Runs f, which launches once, and keeps what was counted.
  template <class F>
  void count(F f) {
    options().counters = true;
    take_counters_json();
    f();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    json_ = take_counters_json();
  }
  // The number of a field, in an object of the launch where one is named.
  uint64_t field(const std::string& name, const std::string& object = "") const {
    size_t at = 0;
    if (!object.empty()) at = json_.find("\"" + object + "\":{");
    const size_t found = json_.find("\"" + name + "\":", at);
    if (at == std::string::npos || found == std::string::npos) return ~uint64_t{0};
    return std::stoull(json_.substr(found + name.size() + 3));
  }
  std::string json_;
};

__device__ unsigned thread_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void read_strided(const int* in, int* out, unsigned stride, unsigned offset) {
  out[thread_index()] = in[thread_index() * stride + offset];
}

struct Stride {
  unsigned stride, offset, sectors;
};
class StrideTest : public CountersTest, public testing::WithParamInterface<Stride> {};
TEST_P(StrideTest, Sectors) {
  const Stride p = GetParam();
  const DeviceVector<int> in(std::vector<int>(kAll * p.stride + p.offset)), out(kAll);
  count([&] { read_strided<<<kBlocks, kThreads>>>(in.data(), out.data(), p.stride, p.offset); });
  EXPECT_EQ(field("requests", "global_loads"), kWarps);
  EXPECT_EQ(field("bytes", "global_loads"), kAll * 4);
  EXPECT_EQ(field("sectors", "global_loads"), kWarps * p.sectors);
  EXPECT_EQ(field("minimum_sectors", "global_loads"), kWarps * 4);
  EXPECT_EQ(field("first_bytes", "global_loads"), kAll * 4);
  EXPECT_EQ(field("again_bytes", "global_loads"), 0u);
  EXPECT_EQ(field("sectors", "global_stores"), kWarps * 4);
}
INSTANTIATE_TEST_SUITE_P(Of4Bytes, StrideTest,
                         testing::Values(Stride{1, 0, 4}, Stride{1, 1, 5}, Stride{1, 8, 4},
                                         Stride{2, 0, 8}, Stride{3, 0, 12}, Stride{4, 0, 16},
                                         Stride{8, 0, 32}, Stride{33, 0, 32}));

__global__ void broadcast(const int* in, int* out) { out[thread_index()] = in[0]; }
TEST_F(CountersTest, BroadcastIsOneSector) {
  const DeviceVector<int> in(std::vector<int>(1)), out(kAll);
  count([&] { broadcast<<<kBlocks, kThreads>>>(in.data(), out.data()); });
  EXPECT_EQ(field("sectors", "global_loads"), kWarps);
  EXPECT_EQ(field("minimum_sectors", "global_loads"), kWarps);
  EXPECT_EQ(field("first_bytes", "global_loads"), 4u);
  EXPECT_EQ(field("again_bytes", "global_loads"), 4 * (kWarps - 1));
}

__global__ void copy_vectors(const float4* in, float4* out) {
  __shared__ float4 held[kThreads];
  held[threadIdx.x] = in[thread_index()];
  __syncthreads();
  out[thread_index()] = held[threadIdx.x ^ 1];
}
TEST_F(CountersTest, VectorsTakeAWavefrontAQuarterWarp) {
  const DeviceVector<float4> in{std::vector<float4>(kAll)}, out{kAll};
  count([&] { copy_vectors<<<kBlocks, kThreads>>>(in.data(), out.data()); });
  for (const char* way : {"global_loads", "global_stores"}) {
    EXPECT_EQ(field("sectors", way), kWarps * 16) << way;
    EXPECT_EQ(field("minimum_sectors", way), kWarps * 16) << way;
  }
  for (const char* way : {"shared_loads", "shared_stores"}) {
    EXPECT_EQ(field("requests", way), kWarps) << way;
    EXPECT_EQ(field("wavefronts", way), kWarps * 4) << way;
    EXPECT_EQ(field("minimum_wavefronts", way), kWarps * 4) << way;
  }
}

// A 32 x 32 tile a block of 32 x 8 threads.
template <int kPadding>
__global__ void transpose(const float* in, float* out, unsigned size) {
  __shared__ float tile[32][32 + kPadding];
  const unsigned x = threadIdx.x, row = blockIdx.y * 32, column = blockIdx.x * 32;
  for (unsigned y = threadIdx.y; y < 32; y += 8) tile[y][x] = in[(row + y) * size + column + x];
  __syncthreads();
  for (unsigned y = threadIdx.y; y < 32; y += 8) out[(column + y) * size + row + x] = tile[x][y];
}
template <int kPadding>
void run_transpose(unsigned size) {
  std::vector<float> values(size * size);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const DeviceVector<float> in(values), out(values.size());
  transpose<kPadding><<<dim3(size / 32, size / 32), dim3(32, 8)>>>(in.data(), out.data(), size);
  const std::vector<float> got = out.host();
  for (unsigned i = 0; i < size * size; ++i) ASSERT_EQ(got[i], values[i % size * size + i / size]);
}
TEST_F(CountersTest, UnpaddedTransposeReadsOneBank) {
  count([&] { run_transpose<0>(128); });
  const uint64_t requests = 16 * 32;
  EXPECT_EQ(field("wavefronts", "shared_stores"), requests);
  EXPECT_EQ(field("wavefronts", "shared_loads"), requests * 32);
  EXPECT_EQ(field("minimum_wavefronts", "shared_loads"), requests);
  EXPECT_EQ(field("sectors", "global_stores"), requests * 4);
  EXPECT_EQ(field("barriers"), 16u * 8);
  EXPECT_EQ(field("shared_bytes"), 32u * 32 * 4);
}
TEST_F(CountersTest, PaddedTransposeReadsAllBanks) {
  count([&] { run_transpose<1>(128); });
  EXPECT_EQ(field("wavefronts", "shared_loads"), 16u * 32);
  EXPECT_EQ(field("wavefronts", "shared_stores"), 16u * 32);
  EXPECT_EQ(field("shared_bytes"), 32u * 33 * 4);
}

// Two groups of 16 bytes a lane, of which the second reads 4.
__global__ void copy_ahead(const float4* in, float4* out) {
  __shared__ float4 held[2][kThreads];
  for (int i = 0; i < 2; ++i) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     static_cast<unsigned>(__cvta_generic_to_shared(&held[i][threadIdx.x]))),
                 "l"(in + thread_index()), "r"(i == 0 ? 16 : 4)
                 : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  asm volatile("cp.async.wait_group 1;" ::: "memory");
  const float4 first = held[0][threadIdx.x];
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  const float4 second = held[1][threadIdx.x];
  out[thread_index()] = make_float4(first.x, first.w, second.x, second.w);
}
TEST_F(CountersTest, BytesThatAreOnTheirWayWhenAWarpWaits) {
  const DeviceVector<float4> in{std::vector<float4>(kAll)}, out{kAll};
  count([&] { copy_ahead<<<kBlocks, kThreads>>>(in.data(), out.data()); });
  EXPECT_EQ(field("copy_waits"), 2 * kWarps);
  EXPECT_EQ(field("copy_wait_bytes"), kWarps * 32 * (20 + 4));
}

__global__ void add_up(int* sum) {
  if (threadIdx.x % 32 < 8) atomicAdd(sum + thread_index() % 2, 1);
}
TEST_F(CountersTest, AtomicsAndLanes) {
  const DeviceVector<int> sum(std::vector<int>(2));
  count([&] { add_up<<<kBlocks, kThreads>>>(sum.data()); });
  EXPECT_EQ(field("atomics"), kAll / 4);
  EXPECT_EQ(field("requests", "global_atomics"), kWarps);
  EXPECT_EQ(field("sectors", "global_atomics"), kWarps);
  EXPECT_EQ(field("atomic", "instructions"), kWarps);
  EXPECT_EQ(field("atomic", "lane_instructions"), kAll / 4);
  EXPECT_EQ(sum.host()[0], static_cast<int>(kAll / 8));
}

__global__ void spill(const int* in, int* out) {
  volatile int held[8];
  for (int i = 0; i < 8; ++i) held[i] = in[thread_index()] + i;
  out[thread_index()] = held[in[thread_index()] & 7];
}
TEST_F(CountersTest, LocalMemory) {
  const DeviceVector<int> in(std::vector<int>(kAll, 5)), out(kAll);
  count([&] { spill<<<kBlocks, kThreads>>>(in.data(), out.data()); });
  EXPECT_EQ(field("local_store_bytes"), kAll * 32);
  EXPECT_EQ(field("local_load_bytes"), kAll * 4);
  EXPECT_EQ(out.host()[0], 10);
}

__global__ void bank_stride(int* out, int stride) {
  __shared__ int held[32 * 32];
  for (int i = static_cast<int>(threadIdx.x); i < 32 * 32; i += 32) held[i] = i;
  __syncthreads();
  out[threadIdx.x] = held[static_cast<int>(threadIdx.x) * stride];
}
TEST_F(CountersTest, SharedStrides) {
  const DeviceVector<int> out(32);
  for (const auto& [stride, wavefronts] :
       {std::pair{0, 1u}, {1, 1u}, {2, 2u}, {3, 1u}, {8, 8u}, {31, 1u}}) {
    count([&, s = stride] { bank_stride<<<1, 32>>>(out.data(), s); });
    EXPECT_EQ(field("wavefronts", "shared_loads"), wavefronts) << stride;
    EXPECT_EQ(field("minimum_wavefronts", "shared_loads"), 1u) << stride;
  }
}

__global__ void turn(int* out, int turns) {
  int sum = 0;
#pragma unroll 1
  for (int i = 0; i < (thread_index() < 32 ? turns : 1); ++i) {
    sum += static_cast<volatile int*>(out)[thread_index()];
  }
  out[thread_index()] = sum;
}
TEST_F(CountersTest, BusiestWarp) {
  const DeviceVector<int> out{std::vector<int>(kAll)};
  count([&] { turn<<<kBlocks, kThreads>>>(out.data(), 1); });
  const uint64_t even = field("busiest_warp");
  count([&] { turn<<<kBlocks, kThreads>>>(out.data(), 101); });
  const uint64_t busiest = field("busiest_warp");
  EXPECT_GE(busiest - even, 100u * 3);  // a load, an addition and a branch at least
  EXPECT_EQ((busiest - even) % 100, 0u);
}

// Four blocks that go round three multiprocessors: one has two of them.
TEST_F(CountersTest, BusiestMultiprocessor) {
  const DeviceVector<int> out{std::vector<int>(kAll)};
  count([&] { turn<<<kBlocks, kThreads>>>(out.data(), 1); });
  EXPECT_EQ(field("multiprocessors"), 108u);
  const uint64_t of_block = field("busiest_multiprocessor");
  options().multiprocessors = 3;
  count([&] { turn<<<kBlocks, kThreads>>>(out.data(), 1); });
  options().multiprocessors = 0;
  EXPECT_EQ(field("multiprocessors"), 3u);
  EXPECT_EQ(field("busiest_multiprocessor"), 2 * of_block);
}

TEST_F(CountersTest, DoNotDependOnTheOrder) {
  const DeviceVector<int> in(std::vector<int>(kAll * 3)), out(kAll);
  std::string first;
  for (const uint64_t seed : {0, 1, 2}) {
    options().seed = seed;
    options().threads = static_cast<unsigned>(seed);
    count([&] { read_strided<<<kBlocks, kThreads>>>(in.data(), out.data(), 3, 0); });
    if (seed == 0) first = json_;
    EXPECT_EQ(json_, first);
  }
}

}  // namespace
}  // namespace longclock::emulator
