// SPDX-License-Identifier: Apache-2.0
// What a capture would refuse is refused by name, and what it takes still runs.
#include <functional>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

__global__ void add_one(int* out) { out[blockIdx.x * blockDim.x + threadIdx.x] += 1; }

class CaptureTest : public EmulatorTest {
 protected:
  void SetUp() override {
    EmulatorTest::SetUp();
    options().print = false;
  }
};

TEST_F(CaptureTest, WorkOnItsStreamIsDone) {
  const DeviceVector<int> a(32), b(32);
  options().capturing = true;
  EXPECT_CUDA(cudaMemsetAsync(a.data(), 0, a.bytes(), launch_stream()));
  add_one<<<1, 32, 0, launch_stream()>>>(a.data());
  EXPECT_CUDA(cudaGetLastError());
  EXPECT_CUDA(
      cudaMemcpyAsync(b.data(), a.data(), b.bytes(), cudaMemcpyDeviceToDevice, launch_stream()));
  cudaFuncAttributes attributes;
  EXPECT_CUDA(cudaFuncGetAttributes(&attributes, add_one));
  int blocks = 0;
  EXPECT_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, add_one, 32, 0));
  options().capturing = false;
  EXPECT_EQ(b.host(), std::vector<int>(32, 1));
}

TEST_F(CaptureTest, EveryOtherCallIsNamed) {
  const DeviceVector<int> a(32);
  int host[32] = {};
  void* memory = nullptr;
  cudaEvent_t event;
  EXPECT_CUDA(cudaEventCreate(&event));
  const cudaStream_t stream = launch_stream();
  struct Case {
    const char* name;
    std::function<cudaError_t()> call;
  };
  const Case cases[] = {
      {"cudaMalloc", [&] { return cudaMalloc(&memory, 4); }},
      {"cudaMallocHost", [&] { return cudaMallocHost(&memory, 4); }},
      {"cudaFree", [&] { return cudaFree(a.data()); }},
      {"cudaDeviceSynchronize", [] { return cudaDeviceSynchronize(); }},
      {"cudaStreamSynchronize", [&] { return cudaStreamSynchronize(stream); }},
      {"cudaStreamQuery", [&] { return cudaStreamQuery(stream); }},
      {"cudaEventSynchronize", [&] { return cudaEventSynchronize(event); }},
      {"cudaEventQuery", [&] { return cudaEventQuery(event); }},
      {"cudaMemcpy", [&] { return cudaMemcpy(host, a.data(), a.bytes(), cudaMemcpyDeviceToHost); }},
      {"cudaMemcpyAsync",
       [&] { return cudaMemcpyAsync(host, a.data(), a.bytes(), cudaMemcpyDeviceToHost, stream); }},
      {"cudaMemset", [&] { return cudaMemset(a.data(), 0, a.bytes()); }},
      {"cudaMemsetAsync", [&] { return cudaMemsetAsync(a.data(), 0, a.bytes(), nullptr); }},
      {"cudaLaunchKernel",
       [&] {
         add_one<<<1, 32>>>(a.data());
         return cudaGetLastError();
       }},
  };
  options().capturing = true;
  for (const Case& each : cases) {
    EXPECT_NE(each.call(), cudaSuccess) << each.name;
    cudaGetLastError();
    const std::vector<Report> reports = take_reports();
    ASSERT_EQ(reports.size(), 1u) << each.name;
    EXPECT_EQ(reports[0].kind, "capture");
    EXPECT_EQ(reports[0].message.rfind(std::string(each.name) + " ", 0), 0u) << reports[0].message;
  }
  options().capturing = false;
  EXPECT_CUDA(cudaEventDestroy(event));
}

TEST_F(CaptureTest, AnotherStreamIsNoPartOfTheGraph) {
  cudaStream_t other;
  EXPECT_CUDA(cudaStreamCreate(&other));
  const DeviceVector<int> a(32);
  options().capturing = true;
  EXPECT_EQ(cudaMemsetAsync(a.data(), 0, a.bytes(), other), cudaErrorStreamCaptureIsolation);
  EXPECT_EQ(cudaMemsetAsync(a.data(), 0, a.bytes(), nullptr), cudaErrorStreamCaptureImplicit);
  cudaGetLastError();
  EXPECT_EQ(take_reports().size(), 2u);
  options().capturing = false;
  EXPECT_CUDA(cudaStreamDestroy(other));
}

TEST_F(CaptureTest, AGridLimitThatATestLowers) {
  const DeviceVector<int> a(std::vector<int>(32, 0));
  options().blocks = 2;
  add_one<<<2, 1>>>(a.data());
  EXPECT_CUDA(cudaGetLastError());
  add_one<<<3, 1>>>(a.data());
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
}

}  // namespace
}  // namespace longclock::emulator
