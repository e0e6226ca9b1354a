// SPDX-License-Identifier: Apache-2.0
// CUB's segmented and block-wide sorts against the C++ standard library.
#include <algorithm>
#include <cub/block/block_radix_sort.cuh>
#include <cub/device/device_segmented_sort.cuh>
#include <cub/warp/warp_merge_sort.cuh>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

constexpr int kBlockThreads = 128;
constexpr int kItems = 9;

__global__ void block_sort_kernel(float* keys, int* values) {
  using Sort = cub::BlockRadixSort<float, kBlockThreads, kItems, int>;
  __shared__ typename Sort::TempStorage storage;
  float key[kItems];
  int value[kItems];
  const int first = (blockIdx.x * kBlockThreads + threadIdx.x) * kItems;
  for (int i = 0; i < kItems; ++i) {
    key[i] = keys[first + i];
    value[i] = values[first + i];
  }
  Sort(storage).Sort(key, value);
  for (int i = 0; i < kItems; ++i) {
    keys[first + i] = key[i];
    values[first + i] = value[i];
  }
}

struct Less {
  __device__ bool operator()(int a, int b) const { return a < b; }
};

template <int kLanes>
__global__ void warp_sort_kernel(int* keys) {
  using Sort = cub::WarpMergeSort<int, kItems, kLanes>;
  __shared__ typename Sort::TempStorage storage[kBlockThreads / kLanes];
  int key[kItems];
  const int first = (blockIdx.x * kBlockThreads + threadIdx.x) * kItems;
  for (int i = 0; i < kItems; ++i) key[i] = keys[first + i];
  Sort(storage[threadIdx.x / kLanes]).Sort(key, Less());
  for (int i = 0; i < kItems; ++i) keys[first + i] = key[i];
}

class CubSegmentedTest : public EmulatorTest {};

TEST_F(CubSegmentedTest, SegmentsOfEveryLength) {
  std::vector<int> offsets{0};
  for (const int length : {0, 1, 2, 31, 32, 33, 100, 700, 0, 3000, 9000, 5})
    offsets.push_back(offsets.back() + length);
  std::vector<uint32_t> keys = random_values<uint32_t>(offsets.back(), 3, 1000);
  const DeviceVector<uint32_t> in(keys), out(keys.size());
  const DeviceVector<int> bounds(offsets);
  const int segments = static_cast<int>(offsets.size()) - 1;
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceSegmentedSort::SortKeys(workspace, bytes, in.data(), out.data(),
                                              static_cast<int>(keys.size()), segments,
                                              bounds.data(), bounds.data() + 1);
  });
  for (int s = 0; s < segments; ++s)
    std::sort(keys.begin() + offsets[s], keys.begin() + offsets[s + 1]);
  EXPECT_EQ(out.host(), keys);
}

TEST_F(CubSegmentedTest, BlockRadixSortIsStable) {
  constexpr int kTile = kBlockThreads * kItems, kBlocks = 5;
  std::vector<int> small = random_values<int>(kTile * kBlocks, 5, 300), order(kTile * kBlocks);
  std::vector<float> keys(small.begin(), small.end());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  const DeviceVector<float> device_keys(keys);
  const DeviceVector<int> device_values(order);
  block_sort_kernel<<<kBlocks, kBlockThreads>>>(device_keys.data(), device_values.data());
  EXPECT_CUDA(cudaGetLastError());
  for (int b = 0; b < kBlocks; ++b) {
    std::stable_sort(order.begin() + b * kTile, order.begin() + (b + 1) * kTile,
                     [&](int x, int y) { return keys[x] < keys[y]; });
  }
  EXPECT_EQ(device_values.host(), order);
}

template <int kLanes>
void check_warp_sort() {
  std::vector<int> keys = random_values<int>(kBlockThreads * kItems * 3, kLanes);
  const DeviceVector<int> device(keys);
  warp_sort_kernel<kLanes><<<3, kBlockThreads>>>(device.data());
  EXPECT_CUDA(cudaGetLastError());
  for (size_t at = 0; at < keys.size(); at += kLanes * kItems) {
    std::sort(keys.begin() + at, keys.begin() + at + kLanes * kItems);
  }
  EXPECT_EQ(device.host(), keys);
}

TEST_F(CubSegmentedTest, WarpMergeSortOfWholeWarpsAndParts) {
  check_warp_sort<32>();
  check_warp_sort<8>();
}

}  // namespace
}  // namespace longclock::emulator
