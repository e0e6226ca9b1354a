// SPDX-License-Identifier: Apache-2.0
// Needs: cubin
// What a device would refuse is refused with its error code, whatever profile is chosen; and what
// is never freed is told.
#include "device_vector.h"

namespace longclock::emulator {
namespace {

__global__ void mark(int* out) {
  if (threadIdx.x == 0) *out = static_cast<int>(blockDim.x);
}
__global__ void use_dynamic(int* out) {
  extern __shared__ int held[];
  held[threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 0) *out = held[0];
}
// All of them are alive at once: ptxas needs a register for each.
__global__ void use_registers(const float* in, float* out) {
  float held[100];
#pragma unroll
  for (int i = 0; i < 100; ++i) held[i] = in[i * blockDim.x + threadIdx.x];
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 100; ++i) sum = sum * held[99 - i] + held[(i * 37) % 100];
  out[threadIdx.x] = sum;
}
__global__ void __launch_bounds__(128) bounded(int* out) {
  if (threadIdx.x == 0) *out = 1;
}

class LimitsTest : public EmulatorTest {
 protected:
  template <class F>
  cudaError_t launched(F f) {
    f();
    const cudaError_t error = cudaGetLastError();
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);  // it was taken, and does not stick
    cudaDeviceSynchronize();
    return error;
  }
  const DeviceVector<int> out_{1};
};

TEST_F(LimitsTest, ThreadsOfABlock) {
  EXPECT_EQ(launched([&] { mark<<<1, 1024>>>(out_.data()); }), cudaSuccess);
  EXPECT_EQ(out_.host()[0], 1024);
  EXPECT_EQ(launched([&] { mark<<<1, 1025>>>(out_.data()); }), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched([&] { mark<<<1, dim3(1, 1, 65)>>>(out_.data()); }),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched([&] { mark<<<1, 0>>>(out_.data()); }), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched([&] { mark<<<0, 32>>>(out_.data()); }), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched([&] { mark<<<dim3(1, 65536), 32>>>(out_.data()); }),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched([&] { bounded<<<1, 128>>>(out_.data()); }), cudaSuccess);
  EXPECT_EQ(launched([&] { bounded<<<1, 160>>>(out_.data()); }), cudaErrorLaunchOutOfResources);
}

TEST_F(LimitsTest, RegistersOfABlock) {
  cudaFuncAttributes attributes;
  EXPECT_CUDA(cudaFuncGetAttributes(&attributes, use_registers));
  EXPECT_GT(attributes.numRegs, 64);   // more than 65536 / 1024
  EXPECT_LE(attributes.numRegs, 128);  // 65536 / 512
  const DeviceVector<float> in(std::vector<float>(100 * 1024)), out(1024);
  EXPECT_EQ(launched([&] { use_registers<<<1, 512>>>(in.data(), out.data()); }), cudaSuccess);
  EXPECT_EQ(launched([&] { use_registers<<<1, 1024>>>(in.data(), out.data()); }),
            cudaErrorLaunchOutOfResources);
  int blocks = -1;
  EXPECT_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, use_registers, 512, 0));
  EXPECT_EQ(blocks, 1);
}

struct Profile {
  int sm, shared, opt_in;
};
class ProfileTest : public LimitsTest, public testing::WithParamInterface<Profile> {};
TEST_P(ProfileTest, SharedMemory) {
  const Profile p = GetParam();
  options().sm = p.sm;
  cudaDeviceProp properties;
  EXPECT_CUDA(cudaGetDeviceProperties(&properties, 0));
  EXPECT_EQ(properties.major * 10 + properties.minor, p.sm);
  EXPECT_EQ(properties.sharedMemPerBlock, static_cast<size_t>(p.shared));
  EXPECT_EQ(properties.sharedMemPerBlockOptin, static_cast<size_t>(p.opt_in));
  EXPECT_CUDA(cudaFuncSetAttribute(use_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 0));
  EXPECT_EQ(launched([&] { use_dynamic<<<1, 32, p.shared>>>(out_.data()); }), cudaSuccess);
  EXPECT_EQ(launched([&] { use_dynamic<<<1, 32, p.shared + 4>>>(out_.data()); }),
            cudaErrorInvalidValue);
  EXPECT_EQ(
      cudaFuncSetAttribute(use_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, p.opt_in + 1),
      cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_CUDA(
      cudaFuncSetAttribute(use_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, p.opt_in));
  EXPECT_EQ(launched([&] { use_dynamic<<<1, 32, p.opt_in>>>(out_.data()); }), cudaSuccess);
}
INSTANTIATE_TEST_SUITE_P(
    All, ProfileTest,
    testing::Values(Profile{80, 48 << 10, 163 << 10}, Profile{86, 48 << 10, 99 << 10},
                    Profile{89, 48 << 10, 99 << 10}, Profile{90, 48 << 10, 227 << 10},
                    Profile{100, 48 << 10, 227 << 10}, Profile{120, 48 << 10, 99 << 10}));

TEST_F(LimitsTest, NoCodeForTheDevice) {
  options().sm = 75;  // this file holds PTX and a cubin of sm_80
  EXPECT_EQ(launched([&] { mark<<<1, 32>>>(out_.data()); }), cudaErrorNoKernelImageForDevice);
}

TEST_F(LimitsTest, Leaks) {
  options().print = false;
  void* lost = nullptr;
  find_leaks();
  take_reports();
  EXPECT_CUDA(cudaMalloc(&lost, 1234));
  bool found = false;
  for (const Report& report : find_leaks())
    found |= report.message.find("1234") != std::string::npos;
  EXPECT_TRUE(found);
  EXPECT_CUDA(cudaFree(lost));
  for (const Report& report : find_leaks())
    EXPECT_EQ(report.message.find("1234"), std::string::npos);
  take_reports();
}

}  // namespace
}  // namespace longclock::emulator
