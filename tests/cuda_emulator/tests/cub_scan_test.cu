// SPDX-License-Identifier: Apache-2.0
// CUB's scans, whose blocks wait for one another, and reductions, against the C++ standard library.
#include <algorithm>
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_scan.cuh>
#include <numeric>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

template <class T>
class ScanTest : public EmulatorTest {};
using Sums = testing::Types<int8_t, uint32_t, int64_t, double>;
TYPED_TEST_SUITE(ScanTest, Sums);

TYPED_TEST(ScanTest, SumsAsTheStandardLibrary) {
  for (const size_t size : {1, 33, 5000, 60000}) {
    std::vector<TypeParam> values(size);
    const std::vector<int> small = random_values<int>(size, size, 100);
    std::transform(small.begin(), small.end(), values.begin(),
                   [](int v) { return static_cast<TypeParam>(v); });
    const DeviceVector<TypeParam> in(values), out(size), total(1);
    for (const uint64_t seed : {0, 5}) {
      options().seed = seed;
      with_workspace([&](void* workspace, size_t& bytes) {
        return cub::DeviceScan::InclusiveSum(workspace, bytes, in.data(), out.data(),
                                             static_cast<int>(size));
      });
      std::vector<TypeParam> expected(size);
      std::inclusive_scan(values.begin(), values.end(), expected.begin());
      EXPECT_EQ(out.host(), expected) << size << " values, seed " << seed;
    }
    with_workspace([&](void* workspace, size_t& bytes) {
      return cub::DeviceReduce::Sum(workspace, bytes, in.data(), total.data(),
                                    static_cast<int>(size));
    });
    EXPECT_EQ(total.host()[0], std::accumulate(values.begin(), values.end(), TypeParam{}));
  }
}

class CubReduceTest : public EmulatorTest {};

TEST_F(CubReduceTest, ArgMaxTakesTheFirstOfEquals) {
  std::vector<float> values = random_values<float>(10000, 1);
  values[4321] = values[8765] = 5000.0f;
  const DeviceVector<float> in(values), best(1);
  const DeviceVector<int64_t> index(1);
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceReduce::ArgMax(workspace, bytes, in.data(), best.data(), index.data(),
                                     int64_t{10000});
  });
  EXPECT_EQ(best.host()[0], 5000.0f);
  EXPECT_EQ(index.host()[0], 4321);
}

TEST_F(CubReduceTest, MinimumAndExclusiveScanWithAnInitialValue) {
  std::vector<int> values = random_values<int>(3000, 9);
  const DeviceVector<int> in(values), out(values.size()), least(1);
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceReduce::Min(workspace, bytes, in.data(), least.data(), 3000);
  });
  EXPECT_EQ(least.host()[0], *std::min_element(values.begin(), values.end()));
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceScan::ExclusiveScan(workspace, bytes, in.data(), out.data(),
                                          cuda::maximum<>{}, -5, 3000);
  });
  std::vector<int> expected(values.size());
  std::exclusive_scan(values.begin(), values.end(), expected.begin(), -5,
                      [](int a, int b) { return std::max(a, b); });
  EXPECT_EQ(out.host(), expected);
}

}  // namespace
}  // namespace longclock::emulator
