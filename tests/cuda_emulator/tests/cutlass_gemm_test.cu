// SPDX-License-Identifier: Apache-2.0
// Needs: nvidia-cutlass
// CUTLASS's GEMMs for tensor cores: cp.async pipelines, ldmatrix, mma.sync, edge tiles. Integers
// are compared exactly, floats against a sum in double.
#include <cutlass/gemm/device/gemm.h>
#include <cutlass/numeric_types.h>

#include <cmath>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;

template <class Element, class Output, class Accumulator, class Threadblock, class Warp,
          class Instruction>
void check_gemm(int m, int n, int k) {
  constexpr int kAlign = 128 / cutlass::sizeof_bits<Element>::value;
  using Device = cutlass::gemm::device::Gemm<
      Element, RowMajor, Element, ColumnMajor, Output, RowMajor, Accumulator,
      cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80, Threadblock, Warp, Instruction,
      cutlass::epilogue::thread::LinearCombination<
          Output, 128 / cutlass::sizeof_bits<Output>::value, Accumulator, Accumulator>,
      cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<>, 3, kAlign, kAlign>;
  const std::vector<int> small_a = random_values<int>(m * k, 1, 9),
                         small_b = random_values<int>(n * k, 2, 9);
  std::vector<Element> a(m * k), b(n * k);
  for (int i = 0; i < m * k; ++i) a[i] = Element(std::abs(small_a[i] % 9) - 4);
  for (int i = 0; i < n * k; ++i) b[i] = Element(std::abs(small_b[i] % 9) - 4);
  const DeviceVector<Element> device_a(a), device_b(b);
  const DeviceVector<Output> c(std::vector<Output>(m * n, Output(1))), d(m * n);
  Device gemm;
  const typename Device::Arguments arguments({m, n, k}, {device_a.data(), k}, {device_b.data(), k},
                                             {c.data(), n}, {d.data(), n},
                                             {Accumulator(1), Accumulator(2)});
  ASSERT_EQ(gemm.can_implement(arguments), cutlass::Status::kSuccess);
  ASSERT_EQ(gemm(arguments), cutlass::Status::kSuccess);
  EXPECT_CUDA(cudaDeviceSynchronize());
  const std::vector<Output> out = d.host();
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 2.0;  // beta times c
      for (int l = 0; l < k; ++l) sum += double(float(a[i * k + l])) * double(float(b[j * k + l]));
      ASSERT_EQ(double(float(out[i * n + j])), sum)
          << i << ", " << j;  // small integers: exact in every type
    }
  }
}

template <int kM, int kN, int kK>
using Shape = cutlass::gemm::GemmShape<kM, kN, kK>;

class CutlassTest : public EmulatorTest {};

TEST_F(CutlassTest, F16WithF32Sums) {
  check_gemm<cutlass::half_t, float, float, Shape<64, 64, 32>, Shape<32, 32, 32>, Shape<16, 8, 16>>(
      128, 64, 96);
}
TEST_F(CutlassTest, F16AtEdges) {
  check_gemm<cutlass::half_t, float, float, Shape<64, 64, 32>, Shape<32, 32, 32>, Shape<16, 8, 16>>(
      100, 72, 40);
}
TEST_F(CutlassTest, Bf16) {
  check_gemm<cutlass::bfloat16_t, float, float, Shape<64, 64, 32>, Shape<32, 32, 32>,
             Shape<16, 8, 16>>(72, 64, 64);
}
TEST_F(CutlassTest, Tf32) {
  check_gemm<cutlass::tfloat32_t, float, float, Shape<64, 64, 16>, Shape<32, 32, 16>,
             Shape<16, 8, 8>>(64, 68, 52);
}
TEST_F(CutlassTest, S8) {
  check_gemm<int8_t, int32_t, int32_t, Shape<64, 64, 64>, Shape<32, 32, 64>, Shape<16, 8, 32>>(
      96, 64, 80);
}

}  // namespace
}  // namespace longclock::emulator
