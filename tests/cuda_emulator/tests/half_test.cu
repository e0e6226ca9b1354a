// SPDX-License-Identifier: Apache-2.0
// Conversions of half and bfloat16 against the host versions in cuda_fp16.h and cuda_bf16.h: of all
// 65536 values of 16 bits, and of all floats as far as rounding can tell them apart, which is sign,
// exponent, 13 bits of the fraction and whether any bit follows.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

template <class To, class From>
__host__ __device__ To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <class F>
__global__ void convert_all(size_t size, typename F::Bits* out) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size;
       i += size_t{gridDim.x} * blockDim.x)
    out[i] = F::run(i);
}

template <class F>
void compare_all(size_t size) {
  const DeviceVector<typename F::Bits> out(size);
  convert_all<F><<<64, 256>>>(size, out.data());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<typename F::Bits> got = out.host();
  for (size_t i = 0; i < size; ++i) {
    const typename F::Bits expected = F::run(i);
    ASSERT_EQ(uint64_t(got[i]), uint64_t(expected)) << "input " << i;
  }
}

#define CONVERSION(name, bits, expression)                                              \
  struct name {                                                                         \
    using Bits = bits;                                                                  \
    static __host__ __device__ bits run(size_t i) { return bits_as<bits>(expression); } \
  };

__host__ __device__ __half half_of(size_t i) { return bits_as<__half>(static_cast<uint16_t>(i)); }
__host__ __device__ __nv_bfloat16 bfloat_of(size_t i) {
  return bits_as<__nv_bfloat16>(static_cast<uint16_t>(i));
}
constexpr size_t kFloats = size_t{1} << 23;
__host__ __device__ float float_of(size_t i) {
  return bits_as<float>(static_cast<uint32_t>(i >> 1 << 10 | (i & 1)));
}

class HalfTest : public EmulatorTest {
 protected:
  void SetUp() override {
    EmulatorTest::SetUp();
    options().checks = kCheckBounds | kCheckInitialised;
  }
};

CONVERSION(HalfToFloat, uint32_t, __half2float(half_of(i)))
CONVERSION(BfloatToFloat, uint32_t, __bfloat162float(bfloat_of(i)))
TEST_F(HalfTest, ToFloat) {
  compare_all<HalfToFloat>(65536);
  compare_all<BfloatToFloat>(65536);
}

// The headers have host versions of rounding to zero only; for the others, that of the float.
template <class Integer>
Integer saturated(float value) {
  constexpr auto kLow = std::numeric_limits<Integer>::min(),
                 kHigh = std::numeric_limits<Integer>::max();
  if (std::isnan(value)) return sizeof(Integer) == 8 ? static_cast<Integer>(uint64_t{1} << 63) : 0;
  if (value <= static_cast<float>(kLow)) return kLow;
  return value >= static_cast<float>(kHigh) ? kHigh : static_cast<Integer>(value);
}
template <class Bits, class F, class Host>
void compare_with(Host host) {
  const DeviceVector<Bits> out(65536);
  convert_all<F><<<64, 256>>>(65536, out.data());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<Bits> got = out.host();
  for (size_t i = 0; i < 65536; ++i) ASSERT_EQ(got[i], host(i)) << "input " << i;
}
#define DEVICE_CONVERSION(name, bits, expression)               \
  struct name {                                                 \
    using Bits = bits;                                          \
    static __device__ bits run(size_t i) { return expression; } \
  };

#define TO_INTEGERS(type, prefix, value, to_float)                                                 \
  CONVERSION(type##ToIntRz, int32_t, prefix##2int_rz(value))                                       \
  CONVERSION(type##ToShortRz, int16_t, prefix##2short_rz(value))                                   \
  CONVERSION(type##ToUintRz, uint32_t, prefix##2uint_rz(value))                                    \
  CONVERSION(type##ToUlongRz, unsigned long long, prefix##2ull_rz(value))                          \
  DEVICE_CONVERSION(type##ToIntRn, int32_t, prefix##2int_rn(value))                                \
  DEVICE_CONVERSION(type##ToIntRd, int32_t, prefix##2int_rd(value))                                \
  DEVICE_CONVERSION(type##ToIntRu, int32_t, prefix##2int_ru(value))                                \
  DEVICE_CONVERSION(type##ToUintRn, uint32_t, prefix##2uint_rn(value))                             \
  DEVICE_CONVERSION(type##ToShortRn, int16_t, prefix##2short_rn(value))                            \
  DEVICE_CONVERSION(type##ToUshortRn, uint16_t, prefix##2ushort_rn(value))                         \
  DEVICE_CONVERSION(type##ToLongRn, long long, prefix##2ll_rn(value))                              \
  TEST_F(HalfTest, type##ToIntegers) {                                                             \
    compare_all<type##ToIntRz>(65536);                                                             \
    compare_all<type##ToShortRz>(65536);                                                           \
    compare_all<type##ToUintRz>(65536);                                                            \
    compare_all<type##ToUlongRz>(65536);                                                           \
    const auto near = [](size_t i) { return std::nearbyint(to_float(value)); };                    \
    compare_with<int32_t, type##ToIntRn>([&](size_t i) { return saturated<int32_t>(near(i)); });   \
    compare_with<int32_t, type##ToIntRd>(                                                          \
        [&](size_t i) { return saturated<int32_t>(std::floor(to_float(value))); });                \
    compare_with<int32_t, type##ToIntRu>(                                                          \
        [&](size_t i) { return saturated<int32_t>(std::ceil(to_float(value))); });                 \
    compare_with<uint32_t, type##ToUintRn>(                                                        \
        [&](size_t i) { return saturated<uint32_t>(near(i)); });                                   \
    compare_with<int16_t, type##ToShortRn>([&](size_t i) { return saturated<int16_t>(near(i)); }); \
    compare_with<uint16_t, type##ToUshortRn>(                                                      \
        [&](size_t i) { return saturated<uint16_t>(near(i)); });                                   \
    compare_with<long long, type##ToLongRn>(                                                       \
        [&](size_t i) { return saturated<long long>(near(i)); });                                  \
  }
TO_INTEGERS(Half, __half, half_of(i), __half2float)
TO_INTEGERS(Bfloat, __bfloat16, bfloat_of(i), __bfloat162float)

CONVERSION(FloatToHalfRn, uint16_t, __float2half_rn(float_of(i)))
CONVERSION(FloatToHalfRz, uint16_t, __float2half_rz(float_of(i)))
CONVERSION(FloatToHalfRd, uint16_t, __float2half_rd(float_of(i)))
CONVERSION(FloatToHalfRu, uint16_t, __float2half_ru(float_of(i)))
TEST_F(HalfTest, FromFloat) {
  compare_all<FloatToHalfRn>(kFloats);
  compare_all<FloatToHalfRz>(kFloats);
  compare_all<FloatToHalfRd>(kFloats);
  compare_all<FloatToHalfRu>(kFloats);
}
CONVERSION(FloatToBfloatRn, uint16_t, __float2bfloat16_rn(float_of(i)))
CONVERSION(FloatToBfloatRz, uint16_t, __float2bfloat16_rz(float_of(i)))
CONVERSION(FloatToBfloatRd, uint16_t, __float2bfloat16_rd(float_of(i)))
CONVERSION(FloatToBfloatRu, uint16_t, __float2bfloat16_ru(float_of(i)))
TEST_F(HalfTest, BfloatFromFloat) {
  compare_all<FloatToBfloatRn>(kFloats);
  compare_all<FloatToBfloatRz>(kFloats);
  compare_all<FloatToBfloatRd>(kFloats);
  compare_all<FloatToBfloatRu>(kFloats);
}

CONVERSION(ShortToHalf, uint16_t, __short2half_rn(static_cast<short>(i)))
CONVERSION(UshortToHalf, uint16_t, __ushort2half_rn(static_cast<unsigned short>(i)))
CONVERSION(IntToHalf, uint16_t, __int2half_rn(static_cast<int>(i * 65537)))
CONVERSION(ShortToBfloat, uint16_t, __short2bfloat16_rn(static_cast<short>(i)))
CONVERSION(UshortToBfloat, uint16_t, __ushort2bfloat16_rn(static_cast<unsigned short>(i)))
CONVERSION(IntToBfloat, uint16_t, __int2bfloat16_rn(static_cast<int>(i * 65537)))
CONVERSION(DoubleToHalf, uint16_t,
           __double2half(static_cast<double>(__half2float(half_of(i >> 2))) *
                         (1.0 + (static_cast<double>(i & 3) - 1.0) * 0x1p-11)))
TEST_F(HalfTest, FromIntegersAndDoubles) {
  compare_all<ShortToHalf>(65536);
  compare_all<UshortToHalf>(65536);
  compare_all<IntToHalf>(65536);
  compare_all<ShortToBfloat>(65536);
  compare_all<UshortToBfloat>(65536);
  compare_all<IntToBfloat>(65536);
  compare_all<DoubleToHalf>(4 * 65536);
}

}  // namespace
}  // namespace longclock::emulator
