// SPDX-License-Identifier: Apache-2.0
// Needs: nvidia-cutlass sm_90
// Where mma.sync, ldmatrix and stmatrix have their elements, against CuTe's traits: operands are
// dealt to the registers by CuTe's layouts, and the product must be that of the matrices.
#include <bit>
#include <cstring>
#include <cute/arch/copy_sm75.hpp>
#include <cute/arch/copy_sm90.hpp>
#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/copy_traits_sm90.hpp>
#include <cute/atom/mma_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <utility>

#include "device_vector.h"

// CuTe 4.2.0 gives B of this instruction columns that overlap (a stride of 4 of k for 8 values):
// the test takes B from m8n8k32, whose register is the same.
struct S4By32 : cute::SM80_16x8x32_S32S4S4S32_TN {};
template <>
struct cute::MMA_Traits<S4By32> : cute::MMA_Traits<cute::SM80_16x8x32_S32S4S4S32_TN> {
  using BLayout = typename cute::MMA_Traits<cute::SM80_8x8x32_S32S4S4S32_TN>::BLayout;
};

namespace longclock::emulator {
namespace {

template <class T>
constexpr int kBits = cute::sizeof_bits_v<T>;

// Element v of a lane, as raw bits in its registers.
template <int kElementBits, class Registers>
__device__ void put(Registers& registers, int v, uint64_t bits) {
  auto* words = reinterpret_cast<uint32_t*>(&registers);
  if constexpr (kElementBits == 64) {
    words[2 * v] = static_cast<uint32_t>(bits);
    words[2 * v + 1] = static_cast<uint32_t>(bits >> 32);
  } else {
    words[v * kElementBits / 32] |= static_cast<uint32_t>(bits << (v * kElementBits % 32));
  }
}
template <int kElementBits, class Registers>
__device__ uint64_t get(const Registers& registers, int v) {
  const auto* words = reinterpret_cast<const uint32_t*>(&registers);
  if constexpr (kElementBits == 64)
    return words[2 * v] | static_cast<uint64_t>(words[2 * v + 1]) << 32;
  if constexpr (kElementBits == 32) return words[v];
  return words[v * kElementBits / 32] >> (v * kElementBits % 32) & ((1u << kElementBits) - 1);
}

template <class Op, size_t... D, size_t... A, size_t... B, size_t... C>
__device__ void multiply_add(typename Op::DRegisters& d, const typename Op::ARegisters& a,
                             const typename Op::BRegisters& b, const typename Op::CRegisters& c,
                             std::index_sequence<D...>, std::index_sequence<A...>,
                             std::index_sequence<B...>, std::index_sequence<C...>) {
  Op::fma(d[D]..., a[A]..., b[B]..., c[C]...);
}
template <class Registers>
using Indices = std::make_index_sequence<std::extent_v<Registers>>;

// Matrices are arrays of elements' bits by columns, as CuTe counts coordinates.
template <class Op>
__global__ void multiply(const uint64_t* a, const uint64_t* b, const uint64_t* c, uint64_t* d) {
  using Traits = cute::MMA_Traits<Op>;
  typename Op::ARegisters ra = {};
  typename Op::BRegisters rb = {};
  typename Op::CRegisters rc = {};
  typename Op::DRegisters rd = {};
  const int lane = static_cast<int>(threadIdx.x);
  for (int v = 0; v < cute::size<1>(typename Traits::ALayout{}); ++v)
    put<kBits<typename Traits::ValTypeA>>(ra, v, a[typename Traits::ALayout{}(lane, v)]);
  for (int v = 0; v < cute::size<1>(typename Traits::BLayout{}); ++v)
    put<kBits<typename Traits::ValTypeB>>(rb, v, b[typename Traits::BLayout{}(lane, v)]);
  for (int v = 0; v < cute::size<1>(typename Traits::CLayout{}); ++v)
    put<kBits<typename Traits::ValTypeC>>(rc, v, c[typename Traits::CLayout{}(lane, v)]);
  multiply_add<Op>(rd, ra, rb, rc, Indices<typename Op::DRegisters>{},
                   Indices<typename Op::ARegisters>{}, Indices<typename Op::BRegisters>{},
                   Indices<typename Op::CRegisters>{});
  for (int v = 0; v < cute::size<1>(typename Traits::CLayout{}); ++v)
    d[typename Traits::CLayout{}(lane, v)] = get<kBits<typename Traits::ValTypeD>>(rd, v);
}

template <class T>
constexpr bool kInteger = kBits<T> <= 8 || std::is_integral_v<T>;

template <class T>
uint64_t encode(int value) {
  if constexpr (kInteger<T>) {
    return static_cast<uint64_t>(value) & ((uint64_t{1} << kBits<T>)-1);
  } else {
    const T element(value);
    uint64_t bits = 0;
    std::memcpy(&bits, &element, sizeof element);
    return bits;
  }
}
template <class T>
double decode(uint64_t bits) {
  if constexpr (kInteger<T>) return static_cast<int32_t>(bits);
  T element;
  std::memcpy(&element, &bits, sizeof element);
  return static_cast<double>(element);
}

template <class T>
std::vector<int> small_values(size_t size, uint64_t seed) {
  std::vector<int> out = random_values<int>(size, seed);
  for (int& value : out) {
    const auto bits = static_cast<unsigned>(value) >> 8;
    if (kBits<T> == 1) {
      value = static_cast<int>(bits % 2);
    } else {
      const bool is_unsigned = std::is_same_v<T, uint8_t> || std::is_same_v<T, cute::uint4b_t>;
      value = static_cast<int>(bits % 9) - (is_unsigned ? 0 : 4);
    }
  }
  return out;
}

template <class Op>
struct MmaLayoutTest : EmulatorTest {};
using Ops =
    testing::Types<cute::SM75_16x8x8_F32F16F16F32_TN, cute::SM80_16x8x8_F16F16F16F16_TN,
                   cute::SM80_16x8x16_F16F16F16F16_TN, cute::SM80_16x8x16_F32F16F16F32_TN,
                   cute::SM80_16x8x8_F32BF16BF16F32_TN, cute::SM80_16x8x16_F32BF16BF16F32_TN,
                   cute::SM80_16x8x4_F32TF32TF32F32_TN, cute::SM80_16x8x8_F32TF32TF32F32_TN,
                   cute::SM80_8x8x4_F64F64F64F64_TN, cute::SM80_8x8x16_S32S8S8S32_TN,
                   cute::SM80_16x8x16_S32S8S8S32_TN, cute::SM80_16x8x32_S32S8S8S32_TN,
                   cute::SM80_16x8x32_S32U8U8S32_TN, cute::SM80_16x8x32_S32U8S8S32_TN,
                   cute::SM80_8x8x32_S32S4S4S32_TN, S4By32, cute::SM80_16x8x64_S32S4S4S32_TN,
                   cute::SM80_16x8x64_S32U4U4S32_TN, cute::SM80_8x8x128_S32U1U1S32_TN_XORPOPC,
                   cute::SM80_16x8x256_S32U1U1S32_TN_XORPOPC>;
TYPED_TEST_SUITE(MmaLayoutTest, Ops);

TYPED_TEST(MmaLayoutTest, IsThatOfCuTe) {
  using Traits = cute::MMA_Traits<TypeParam>;
  using A = typename Traits::ValTypeA;
  using B = typename Traits::ValTypeB;
  using C = typename Traits::ValTypeC;
  constexpr int m = cute::size<0>(typename Traits::Shape_MNK{});
  constexpr int n = cute::size<1>(typename Traits::Shape_MNK{});
  constexpr int k = cute::size<2>(typename Traits::Shape_MNK{});
  const std::vector<int> a = small_values<A>(m * k, 1), b = small_values<B>(n * k, 2),
                         c = small_values<C>(m * n, 3);
  std::vector<uint64_t> a_bits, b_bits, c_bits;
  for (const int value : a) a_bits.push_back(encode<A>(value));
  for (const int value : b) b_bits.push_back(encode<B>(value));
  for (const int value : c) c_bits.push_back(encode<C>(value));
  const DeviceVector<uint64_t> da(a_bits), db(b_bits), dc(c_bits), dd(m * n);
  multiply<TypeParam><<<1, 32>>>(da.data(), db.data(), dc.data(), dd.data());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<uint64_t> d = dd.host();
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      int sum = c[i + m * j];
      for (int l = 0; l < k; ++l) {
        const int x = a[i + m * l], y = b[j + n * l];
        sum += kBits<A> == 1 ? x ^ y : x * y;
      }
      ASSERT_EQ(decode<typename Traits::ValTypeD>(d[i + m * j]), sum) << i << ", " << j;
    }
  }
}

// --- ldmatrix and stmatrix: element e of a lane is at a bit of the rows that CuTe names.

template <class Op, class Registers, size_t... I>
__device__ void copy_in(const cute::uint128_t& row, Registers& r, std::index_sequence<I...>) {
  Op::copy(row, r[I]...);
}
template <class Op, class Registers, size_t... I>
__device__ void copy_out(const Registers& r, cute::uint128_t& row, std::index_sequence<I...>) {
  Op::copy(r[I]..., row);
}

template <class Op>
__global__ void load_rows(uint16_t* out) {
  __shared__ alignas(16) uint16_t rows[32 * 8];
  for (int i = static_cast<int>(threadIdx.x); i < 32 * 8; i += 32)
    rows[i] = static_cast<uint16_t>(i);
  __syncthreads();
  typename Op::DRegisters r;
  copy_in<Op>(reinterpret_cast<const cute::uint128_t&>(rows[threadIdx.x * 8]), r,
              Indices<typename Op::DRegisters>{});
  constexpr int kElements = 2 * std::extent_v<typename Op::DRegisters>;
  for (int e = 0; e < kElements; ++e)
    out[threadIdx.x * kElements + e] = static_cast<uint16_t>(r[e / 2] >> (e % 2 * 16));
}

template <class Op>
struct LoadMatrixTest : EmulatorTest {};
using Loads =
    testing::Types<cute::SM75_U32x1_LDSM_N, cute::SM75_U32x2_LDSM_N, cute::SM75_U32x4_LDSM_N,
                   cute::SM75_U16x2_LDSM_T, cute::SM75_U16x4_LDSM_T, cute::SM75_U16x8_LDSM_T>;
TYPED_TEST_SUITE(LoadMatrixTest, Loads);

TYPED_TEST(LoadMatrixTest, IsThatOfCuTe) {
  using Traits = cute::Copy_Traits<TypeParam>;
  constexpr int kElements = 2 * std::extent_v<typename TypeParam::DRegisters>;
  const DeviceVector<uint16_t> out(32 * kElements);
  load_rows<TypeParam><<<1, 32>>>(out.data());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<uint16_t> got = out.host();
  for (int lane = 0; lane < 32; ++lane) {
    for (int e = 0; e < kElements; ++e) {
      const int bit = static_cast<int>(typename Traits::DstLayout{}(lane, e * 16));
      ASSERT_EQ(got[lane * kElements + e], bit / 16) << "lane " << lane << ", element " << e;
    }
  }
}

template <class Op>
__global__ void store_rows(uint16_t* out) {
  __shared__ alignas(16) uint16_t rows[32 * 8];
  for (int i = static_cast<int>(threadIdx.x); i < 32 * 8; i += 32) rows[i] = 0xffff;
  __syncthreads();
  constexpr int kElements = 2 * std::extent_v<typename Op::SRegisters>;
  typename Op::SRegisters r = {};
  for (int e = 0; e < kElements; ++e) r[e / 2] |= (threadIdx.x * kElements + e) << (e % 2 * 16);
  copy_out<Op>(r, reinterpret_cast<cute::uint128_t&>(rows[threadIdx.x * 8]),
               Indices<typename Op::SRegisters>{});
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 32 * 8; i += 32) out[i] = rows[i];
}

template <class Op>
struct StoreMatrixTest : EmulatorTest {};
using Stores =
    testing::Types<cute::SM90_U32x1_STSM_N, cute::SM90_U32x2_STSM_N, cute::SM90_U32x4_STSM_N,
                   cute::SM90_U16x2_STSM_T, cute::SM90_U16x4_STSM_T, cute::SM90_U16x8_STSM_T>;
TYPED_TEST_SUITE(StoreMatrixTest, Stores);

TYPED_TEST(StoreMatrixTest, IsThatOfCuTe) {
  options().sm = 90;
  using Traits = cute::Copy_Traits<TypeParam>;
  constexpr int kElements = 2 * std::extent_v<typename TypeParam::SRegisters>;
  const DeviceVector<uint16_t> out(32 * 8);
  store_rows<TypeParam><<<1, 32>>>(out.data());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<uint16_t> got = out.host();
  for (int lane = 0; lane < 32; ++lane) {
    for (int e = 0; e < kElements; ++e) {
      const int bit = static_cast<int>(typename Traits::SrcLayout{}(lane, e * 16));
      ASSERT_EQ(got[bit / 16], lane * kElements + e) << "lane " << lane << ", element " << e;
    }
  }
}

__global__ void transpose_registers(uint16_t* out) {
  const uint32_t lane = threadIdx.x;
  const uint32_t source = (2 * lane) | (2 * lane + 1) << 16;  // the tile 0 .. 63 by rows
  uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(source));
  out[2 * lane] = static_cast<uint16_t>(result);
  out[2 * lane + 1] = static_cast<uint16_t>(result >> 16);
}

class MoveMatrixTest : public EmulatorTest {};
TEST_F(MoveMatrixTest, Transposes) {
  const DeviceVector<uint16_t> out(64);
  transpose_registers<<<1, 32>>>(out.data());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<uint16_t> got = out.host();
  for (int i = 0; i < 64; ++i) ASSERT_EQ(got[i], i % 8 * 8 + i / 8);
}

}  // namespace
}  // namespace longclock::emulator
