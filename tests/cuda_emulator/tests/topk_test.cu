// SPDX-License-Identifier: Apache-2.0
// Needs: nvidia-cuda-cccl
// DeviceTopK of a CUB that is newer than the toolkit's, against the C++ standard library.
#include <cuda/__execution/determinism.h>
#include <cuda/__execution/output_ordering.h>
#include <cuda/__execution/require.h>

#include <algorithm>
#include <cub/device/device_topk.cuh>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

class TopKTest : public EmulatorTest, public testing::WithParamInterface<int> {};

TEST_P(TopKTest, KeepsTheLargest) {
  const int k = GetParam();
  std::vector<float> keys = random_values<float>(20000, static_cast<uint64_t>(k));
  const DeviceVector<float> in(keys), out(static_cast<size_t>(k));
  const auto requirements = cuda::execution::require(cuda::execution::determinism::not_guaranteed,
                                                     cuda::execution::output_ordering::unsorted);
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceTopK::MaxKeys(workspace, bytes, in.data(), out.data(),
                                    static_cast<int>(keys.size()), k, requirements);
  });
  std::vector<float> got = out.host();
  std::sort(got.begin(), got.end(), std::greater<>());
  std::partial_sort(keys.begin(), keys.begin() + k, keys.end(), std::greater<>());
  keys.resize(static_cast<size_t>(k));
  EXPECT_EQ(got, keys);
}
INSTANTIATE_TEST_SUITE_P(Sizes, TopKTest, testing::Values(1, 100, 3000));

}  // namespace
}  // namespace longclock::emulator
