// SPDX-License-Identifier: Apache-2.0
// What the CUDA tests share: device memory, launches that must raise no report, random data.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "../emulator.h"

namespace longclock::emulator {

#define EXPECT_CUDA(call) EXPECT_EQ(call, cudaSuccess) << cudaGetErrorString(cudaPeekAtLastError())

template <class T>
class DeviceVector {
 public:
  explicit DeviceVector(size_t size) : size_(size) {
    EXPECT_CUDA(cudaMalloc(&data_, bytes() + !size));
  }
  explicit DeviceVector(const std::vector<T>& host) : DeviceVector(host.size()) {
    if (size_ != 0) EXPECT_CUDA(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  DeviceVector(const DeviceVector&) = delete;
  DeviceVector& operator=(const DeviceVector&) = delete;
  ~DeviceVector() { EXPECT_CUDA(cudaFree(data_)); }

  T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  std::vector<T> host() const {
    std::vector<T> out(size_);
    if (size_ != 0) EXPECT_CUDA(cudaMemcpy(out.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// Calls f(workspace, bytes&) as CUB's device functions are called: for the size, then for the work.
template <class F>
void with_workspace(F f) {
  size_t bytes = 0;
  EXPECT_CUDA(f(nullptr, bytes));
  DeviceVector<std::byte> workspace(bytes);
  EXPECT_CUDA(f(workspace.data(), bytes));
  EXPECT_CUDA(cudaDeviceSynchronize());
}

template <class T>
std::vector<T> random_values(size_t size, uint64_t seed, uint64_t below = 0) {
  std::mt19937_64 random(seed);
  std::vector<T> out(size);
  for (T& value : out) {
    const uint64_t bits = random();
    if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>((static_cast<double>(bits >> 11) / 9007199254740992.0 - 0.5) * 2000.0);
    } else {
      value = static_cast<T>(below == 0 ? bits : bits % below);
    }
  }
  return out;
}

// Every test must leave without a report, except those that look for one and take it.
class EmulatorTest : public testing::Test {
 protected:
  void SetUp() override {
    options() = Options{};
    take_reports();
  }
  void TearDown() override {
    for (const Report& report : take_reports()) ADD_FAILURE() << report.text();
    options() = Options{};
  }
};

}  // namespace longclock::emulator
