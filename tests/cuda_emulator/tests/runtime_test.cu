// SPDX-License-Identifier: Apache-2.0
// The runtime API apart from launches: memory, symbols, streams, events, capture queries,
// occupancy, and what it says to wrong arguments; and instructions that the emulator does not know.
#include <cstring>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

__device__ int counter[4] = {1, 2, 3, 4};
__constant__ float weights[8];
__managed__ int managed = 7;

__global__ void scale(const int* in, int* out, int factor) {
  out[threadIdx.x] = in[threadIdx.x] * factor;
}
__global__ void touch_symbols(float* out) {
  const unsigned i = threadIdx.x;
  out[i] = weights[i] + static_cast<float>(counter[i % 4] + managed);
}
__global__ void frobnicate(int* out) {
  int value;
  asm volatile("frobnicate.b32 %0;" : "=r"(value));
  out[0] = value;
}

class RuntimeTest : public EmulatorTest {};

TEST_F(RuntimeTest, CopiesOnStreamsKeepTheirOrder) {
  const std::vector<int> values = random_values<int>(64, 1, 1000);
  const DeviceVector<int> in(64), out(64);
  std::vector<int> got(64);
  cudaStream_t stream;
  EXPECT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaEvent_t begin, end;
  EXPECT_CUDA(cudaEventCreate(&begin));
  EXPECT_CUDA(cudaEventCreate(&end));
  EXPECT_CUDA(cudaEventRecord(begin, stream));
  EXPECT_CUDA(
      cudaMemcpyAsync(in.data(), values.data(), in.bytes(), cudaMemcpyHostToDevice, stream));
  scale<<<1, 64, 0, stream>>>(in.data(), out.data(), 3);
  EXPECT_CUDA(cudaMemcpyAsync(got.data(), out.data(), out.bytes(), cudaMemcpyDeviceToHost, stream));
  EXPECT_CUDA(cudaEventRecord(end, stream));
  EXPECT_CUDA(cudaStreamWaitEvent(stream, end));
  EXPECT_CUDA(cudaStreamSynchronize(stream));
  EXPECT_CUDA(cudaEventQuery(end));
  float milliseconds = -1;
  EXPECT_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
  EXPECT_GE(milliseconds, 0.0f);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(got[i], values[i] * 3);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
  EXPECT_CUDA(cudaStreamIsCapturing(stream, &status));
  EXPECT_EQ(status, cudaStreamCaptureStatusNone);
  EXPECT_CUDA(cudaEventDestroy(begin));
  EXPECT_CUDA(cudaEventDestroy(end));
  EXPECT_CUDA(cudaStreamDestroy(stream));
}

TEST_F(RuntimeTest, Symbols) {
  float host[8];
  for (int i = 0; i < 8; ++i) host[i] = static_cast<float>(i) / 2;
  EXPECT_CUDA(cudaMemcpyToSymbol(weights, host, sizeof host));
  const int tens[4] = {10, 20, 30, 40};
  EXPECT_CUDA(cudaMemcpyToSymbol(counter, tens, sizeof tens));
  managed = 100;
  const DeviceVector<float> out(8);
  touch_symbols<<<1, 8>>>(out.data());
  const std::vector<float> got = out.host();
  for (int i = 0; i < 8; ++i) EXPECT_EQ(got[i], host[i] + static_cast<float>(tens[i % 4] + 100));
  int back[4] = {};
  EXPECT_CUDA(cudaMemcpyFromSymbol(back, counter, sizeof back));
  EXPECT_EQ(std::memcmp(back, tens, sizeof back), 0);
  void* address = nullptr;
  size_t size = 0;
  EXPECT_CUDA(cudaGetSymbolAddress(&address, counter));
  EXPECT_CUDA(cudaGetSymbolSize(&size, counter));
  EXPECT_EQ(size, sizeof back);
  EXPECT_EQ(static_cast<int*>(address)[3], 40);
}

TEST_F(RuntimeTest, Memory) {
  char* block = nullptr;
  size_t pitch = 0;
  EXPECT_CUDA(cudaMallocPitch(reinterpret_cast<void**>(&block), &pitch, 100, 4));
  EXPECT_GE(pitch, 100u);
  EXPECT_EQ(pitch % 32, 0u);
  EXPECT_CUDA(cudaMemset2D(block, pitch, 5, 100, 4));
  char rows[4][100];
  EXPECT_CUDA(cudaMemcpy2D(rows, 100, block, pitch, 100, 4, cudaMemcpyDeviceToHost));
  for (const auto& row : rows) EXPECT_EQ(row[99], 5);
  cudaPointerAttributes attributes;
  EXPECT_CUDA(cudaPointerGetAttributes(&attributes, block + 10));
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  EXPECT_CUDA(cudaPointerGetAttributes(&attributes, rows));
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
  EXPECT_CUDA(cudaFree(block));
  EXPECT_CUDA(cudaFree(nullptr));
  void* async = nullptr;
  EXPECT_CUDA(cudaMallocAsync(&async, 100, nullptr));
  EXPECT_CUDA(cudaFreeAsync(async, nullptr));
}

TEST_F(RuntimeTest, WrongArgumentsAreErrors) {
  options().print = false;
  int* data = nullptr;
  EXPECT_CUDA(cudaMalloc(&data, 64));
  EXPECT_EQ(cudaFree(data + 1), cudaErrorInvalidValue);
  EXPECT_CUDA(cudaFree(data));
  EXPECT_EQ(cudaFree(data), cudaErrorInvalidValue);
  void* huge = nullptr;
  EXPECT_EQ(cudaMalloc(&huge, size_t{1} << 60), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  cudaGetLastError();
  take_reports();
}

TEST_F(RuntimeTest, Occupancy) {
  int blocks = 0;
  EXPECT_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, scale, 256, 0));
  EXPECT_EQ(blocks, 8);  // 2048 threads
  EXPECT_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, scale, 256, 40 << 10));
  EXPECT_EQ(blocks, 4);  // 164 KB, of which a block takes 41
  options().sm = 75;
  cudaDeviceProp properties;
  EXPECT_CUDA(cudaGetDeviceProperties(&properties, 0));
  EXPECT_EQ(properties.maxThreadsPerMultiProcessor, 1024);
}

TEST_F(RuntimeTest, AnUnknownInstructionIsNamed) {
  options().print = false;
  const DeviceVector<int> out(1);
  frobnicate<<<1, 32>>>(out.data());
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalInstruction);
  const std::vector<Report> reports = take_reports();
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports[0].kind, "unknown instruction");
  EXPECT_NE(reports[0].message.find("frobnicate.b32"), std::string::npos);
}

}  // namespace
}  // namespace longclock::emulator
