// SPDX-License-Identifier: Apache-2.0
// Thrust on device vectors, against the C++ standard library.
#include <thrust/device_vector.h>
#include <thrust/sort.h>
#include <thrust/transform_reduce.h>
#include <thrust/unique.h>

#include <algorithm>
#include <numeric>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

struct Square {
  __host__ __device__ int64_t operator()(int x) const { return int64_t{x} * x; }
};

// Not a radix sort: a comparison of Thrust's own goes to merge sort.
struct ByLastDigit {
  __host__ __device__ bool operator()(int a, int b) const { return a % 10 < b % 10; }
};

class ThrustTest : public EmulatorTest {};

TEST_F(ThrustTest, SortByKey) {
  std::vector<int> keys = random_values<int>(25000, 11), values(keys.size());
  std::iota(values.begin(), values.end(), 0);
  thrust::device_vector<int> device_keys(keys.begin(), keys.end()),
      device_values(values.begin(), values.end());
  thrust::sort_by_key(device_keys.begin(), device_keys.end(), device_values.begin());
  std::stable_sort(values.begin(), values.end(), [&](int a, int b) { return keys[a] < keys[b]; });
  std::vector<int> sorted(values.size());
  thrust::copy(device_values.begin(), device_values.end(), sorted.begin());
  EXPECT_EQ(sorted, values);
}

TEST_F(ThrustTest, StableSortByAnOwnComparison) {
  std::vector<int> keys = random_values<int>(7000, 12, 100000);
  thrust::device_vector<int> device(keys.begin(), keys.end());
  thrust::stable_sort(device.begin(), device.end(), ByLastDigit());
  std::stable_sort(keys.begin(), keys.end(), ByLastDigit());
  std::vector<int> sorted(keys.size());
  thrust::copy(device.begin(), device.end(), sorted.begin());
  EXPECT_EQ(sorted, keys);
}

TEST_F(ThrustTest, ReduceAndUnique) {
  const std::vector<int> values = random_values<int>(9000, 13, 50);
  thrust::device_vector<int> device(values.begin(), values.end());
  const int64_t sum = thrust::transform_reduce(device.begin(), device.end(), Square(), int64_t{0},
                                               thrust::plus<int64_t>());
  EXPECT_EQ(sum, std::accumulate(values.begin(), values.end(), int64_t{0},
                                 [](int64_t s, int v) { return s + Square()(v); }));
  const auto end = thrust::unique(device.begin(), device.end());
  std::vector<int> expected = values;
  expected.erase(std::unique(expected.begin(), expected.end()), expected.end());
  std::vector<int> unique(static_cast<size_t>(end - device.begin()));
  thrust::copy(device.begin(), end, unique.begin());
  EXPECT_EQ(unique, expected);
}

}  // namespace
}  // namespace longclock::emulator
