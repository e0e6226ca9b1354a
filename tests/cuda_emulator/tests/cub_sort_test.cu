// SPDX-License-Identifier: Apache-2.0
// CUB's sorts against the C++ standard library.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <numeric>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

template <class T>
class RadixSortTest : public EmulatorTest {};
using Keys = testing::Types<uint8_t, int16_t, uint32_t, int64_t, float, double>;
TYPED_TEST_SUITE(RadixSortTest, Keys);

TYPED_TEST(RadixSortTest, SortsKeysAsStdSort) {
  for (const size_t size : {0, 1, 31, 1000, 30000}) {
    std::vector<TypeParam> keys = random_values<TypeParam>(size, size);
    const DeviceVector<TypeParam> in(keys), out(size);
    with_workspace([&](void* workspace, size_t& bytes) {
      return cub::DeviceRadixSort::SortKeys(workspace, bytes, in.data(), out.data(),
                                            static_cast<int>(size));
    });
    std::sort(keys.begin(), keys.end());
    EXPECT_EQ(out.host(), keys) << size << " keys";
  }
}

class PairsTest : public EmulatorTest, public testing::WithParamInterface<int> {};

TEST_P(PairsTest, DescendingSortIsStableAtEverySeedAndProfile) {
  options().sm = GetParam();
  constexpr size_t kSize = 20000;
  const std::vector<uint32_t> keys = random_values<uint32_t>(kSize, 7, 500);
  std::vector<int> order(kSize);
  std::iota(order.begin(), order.end(), 0);
  const DeviceVector<uint32_t> in(keys), out(kSize);
  const DeviceVector<int> values(order);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return keys[a] > keys[b]; });
  for (const uint64_t seed : {0, 1, 2}) {
    options().seed = seed;
    const DeviceVector<int> sorted(kSize);
    with_workspace([&](void* workspace, size_t& bytes) {
      return cub::DeviceRadixSort::SortPairsDescending(workspace, bytes, in.data(), out.data(),
                                                       values.data(), sorted.data(),
                                                       static_cast<int>(kSize));
    });
    EXPECT_EQ(sorted.host(), order) << "seed " << seed;
  }
}
INSTANTIATE_TEST_SUITE_P(Profiles, PairsTest, testing::Values(80, 86, 90, 120));

}  // namespace
}  // namespace longclock::emulator
