// SPDX-License-Identifier: Apache-2.0
// Instructions by way of their C++ names, on random and awkward operands, against the host.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

constexpr size_t kSize = 20000;

template <class Out, class In, class F>
__global__ void apply(const In* a, const In* b, const In* c, Out* out, F f) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < kSize) out[i] = f(a[i], b[i], c[i]);
}

// As PTX has them: the number beside a NaN, signalling or not, and -0 below +0.
float least(float x, float y) {
  if (std::isnan(x) || std::isnan(y)) return std::isnan(x) ? y : x;
  return x < y || (x == y && std::signbit(x)) ? x : y;
}
float most(float x, float y) { return -least(-x, -y); }

template <class T>
bool same(T x, T y) {
  if constexpr (std::is_floating_point_v<T>)
    return std::memcmp(&x, &y, sizeof x) == 0 || (x != x && y != y);
  return x == y;
}

// Random bits, of which some are the ends of the range and small numbers.
template <class T>
std::vector<T> operands(uint64_t seed) {
  std::vector<T> out = random_values<T>(kSize, seed);
  if constexpr (std::is_integral_v<T>) {
    using Limits = std::numeric_limits<T>;
    constexpr T kAwkward[] = {0,  1,  2, Limits::max(), Limits::min(), static_cast<T>(-1),
                              31, 32, 33};
    for (size_t i = 0; i < kSize; i += 3)
      out[i] = kAwkward[(i / 3 + seed * 7 + i / 97) % std::size(kAwkward)];
  } else {
    using Limits = std::numeric_limits<T>;
    constexpr T kAwkward[] = {T(0),
                              T(-0.0),
                              T(1),
                              Limits::max(),
                              Limits::min(),
                              Limits::denorm_min(),
                              Limits::infinity(),
                              Limits::quiet_NaN(),
                              T(0.5),
                              T(-1.5),
                              T(2.5),
                              T(1e10)};
    for (size_t i = 0; i < kSize; i += 3)
      out[i] = kAwkward[(i / 3 + seed * 5 + i / 97) % std::size(kAwkward)];
  }
  return out;
}

template <class Out, class In, class F, class Host>
void compare(const char* name, F device, Host host) {
  const std::vector<In> a = operands<In>(1), b = operands<In>(2), c = operands<In>(3);
  const DeviceVector<In> da(a), db(b), dc(c);
  const DeviceVector<Out> out(kSize);
  apply<<<(kSize + 127) / 128, 128>>>(da.data(), db.data(), dc.data(), out.data(), device);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << name;
  const std::vector<Out> got = out.host();
  for (size_t i = 0; i < kSize; ++i) {
    const Out expected = host(a[i], b[i], c[i]);
    ASSERT_TRUE(same(got[i], expected)) << name << "(" << a[i] << ", " << b[i] << ", " << c[i]
                                        << ") is " << got[i] << ", expected " << expected;
  }
}

#define BOTH(Out, In, expression)                                                 \
  compare<Out, In>(                                                               \
      #expression, [] __device__(In a, In b, In c) -> Out { return expression; }, \
      [](In a, In b, In c) -> Out { return expression; })
#define AGAINST(Out, In, device, host)                                    \
  compare<Out, In>(                                                       \
      #device, [] __device__(In a, In b, In c) -> Out { return device; }, \
      [](In a, In b, In c) -> Out { return host; })

// Tests may not hold device lambdas: their bodies are functions.

void check_integers32() {
  BOTH(uint32_t, uint32_t, a* b + c);
  BOTH(uint32_t, uint32_t, b == 0 ? c : a / b + a % b);
  BOTH(int32_t, int32_t, (b == 0 || b == -1) ? c : a / b - a % b);
  BOTH(uint32_t, uint32_t, (a << (b & 31)) ^ (c >> (a & 31)));
  BOTH(int32_t, int32_t, (a >> (b & 31)) | (b & ~c));
  BOTH(int32_t, int32_t, a < b ? (b <= c ? a : c) : (a != c ? b : 7));
  AGAINST(uint32_t, uint32_t, __umulhi(a, b), static_cast<uint32_t>(uint64_t{a} * b >> 32));
  AGAINST(int32_t, int32_t, __mulhi(a, b), static_cast<int32_t>(int64_t{a} * b >> 32));
  AGAINST(int32_t, uint32_t, __popc(a) + __clz(b) * 100 + __ffs(c) * 10000,
          std::popcount(a) + std::countl_zero(b) * 100 +
              (c == 0 ? 0 : std::countr_zero(c) + 1) * 10000);
  AGAINST(uint32_t, uint32_t, __usad(a, b, c), (a > b ? a - b : b - a) + c);
  AGAINST(uint32_t, uint32_t, __funnelshift_l(a, b, c),
          static_cast<uint32_t>((uint64_t{b} << 32 | a) << (c & 31) >> 32));
  AGAINST(uint32_t, uint32_t, __funnelshift_rc(a, b, c),
          static_cast<uint32_t>((uint64_t{b} << 32 | a) >> std::min(c, 32u)));
  AGAINST(int32_t, int32_t, min(max(a, b), c), std::min(std::max(a, b), c));
}

void check_bits_and_bytes() {
  AGAINST(uint32_t, uint32_t, __brev(a), [](uint32_t x) {
    uint32_t out = 0;
    for (int i = 0; i < 32; ++i) out |= (x >> i & 1) << (31 - i);
    return out;
  }(a));
  AGAINST(uint32_t, uint32_t, __byte_perm(a, b, c & 0x7777),
          [](uint32_t x, uint32_t y, uint32_t s) {
            const uint64_t bytes = uint64_t{y} << 32 | x;
            uint32_t out = 0;
            for (int i = 0; i < 4; ++i)
              out |= static_cast<uint32_t>(bytes >> (s >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
            return out;
          }(a, b, c));
  AGAINST(int32_t, int32_t, __dp4a(a, b, c), [](int32_t x, int32_t y, int32_t sum) {
    auto total = static_cast<uint32_t>(sum);
    for (int i = 0; i < 4; ++i)
      total += static_cast<uint32_t>(int8_t(x >> (8 * i)) * int8_t(y >> (8 * i)));
    return static_cast<int32_t>(total);
  }(a, b, c));
  AGAINST(uint32_t, uint32_t, __vadd4(a, b) ^ __vmaxs2(b, c),
          [](uint32_t x, uint32_t y, uint32_t z) {
            uint32_t sum = 0;
            uint32_t most = 0;
            for (int i = 0; i < 4; ++i) sum |= ((x >> (8 * i)) + (y >> (8 * i)) & 0xff) << (8 * i);
            for (int i = 0; i < 2; ++i)
              most |= uint32_t{static_cast<uint16_t>(
                          std::max(int16_t(y >> (16 * i)), int16_t(z >> (16 * i))))}
                      << (16 * i);
            return sum ^ most;
          }(a, b, c));
}

void check_integers64() {
  BOTH(uint64_t, uint64_t, a* b + c);
  BOTH(uint64_t, uint64_t, b == 0 ? c : a / b ^ a % b);
  BOTH(int64_t, int64_t, (b == 0 || b == -1) ? c : a / b - a % b);
  BOTH(uint64_t, uint64_t, (a << (b & 63)) ^ (c >> (a & 63)));
  BOTH(int64_t, int64_t, (a >> (b & 63)) + (b < c ? a : b));
  AGAINST(uint64_t, uint64_t, __umul64hi(a, b),
          static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64));
  AGAINST(int32_t, uint64_t, __popcll(a) + __clzll(b) * 100,
          std::popcount(a) + std::countl_zero(b) * 100);
}

void check_floats() {
  BOTH(float, float, a + b);
  BOTH(float, float, a* b);
  AGAINST(float, float, __fmaf_rn(a, b, c), std::fma(a, b, c));
  AGAINST(float, float, __fdiv_rn(a, b), a / b);
  AGAINST(float, float, __fsqrt_rn(a), std::sqrt(a));
  AGAINST(float, float, fminf(fmaxf(a, b), c), least(most(a, b), c));
  AGAINST(float, float, rintf(a) + floorf(b) - truncf(c),
          std::nearbyint(a) + std::floor(b) - std::trunc(c));
  AGAINST(int32_t, float, (a < b) + 2 * (a >= b) + 4 * (b == c) + 8 * (b != c) + 16 * isnan(a),
          (a < b) + 2 * (a >= b) + 4 * (b == c) + 8 * (b != c) + 16 * std::isnan(a));
  AGAINST(float, double, static_cast<float>(a) + static_cast<float>(b),
          static_cast<float>(a) + static_cast<float>(b));
}

void check_doubles() {
  BOTH(double, double, a + b * 0.25);
  AGAINST(double, double, __fma_rn(a, b, c), std::fma(a, b, c));
  AGAINST(double, double, __ddiv_rn(a, b), a / b);
  AGAINST(double, double, __dsqrt_rn(a), std::sqrt(a));
  AGAINST(double, float, static_cast<double>(a) + static_cast<double>(b),
          static_cast<double>(a) + static_cast<double>(b));
}

void check_conversions_of_floats() {
  const auto to_int = [](float x) {
    if (std::isnan(x)) return 0;
    if (x >= 2147483648.0f) return std::numeric_limits<int32_t>::max();
    return x <= -2147483648.0f ? std::numeric_limits<int32_t>::min() : static_cast<int32_t>(x);
  };
  compare<int32_t, float>(
      "__float2int_rn", [] __device__(float a, float, float) { return __float2int_rn(a); },
      [&](float a, float, float) { return to_int(std::nearbyint(a)); });
  compare<int32_t, float>(
      "__float2int_rd", [] __device__(float a, float, float) { return __float2int_rd(a); },
      [&](float a, float, float) { return to_int(std::floor(a)); });
  BOTH(float, int32_t, static_cast<float>(a) + static_cast<float>(static_cast<uint32_t>(b)));
  BOTH(float, int64_t, static_cast<float>(a) - static_cast<float>(static_cast<uint64_t>(b)));
  BOTH(double, int64_t, static_cast<double>(a) - static_cast<double>(static_cast<uint64_t>(b)));
  BOTH(int32_t, int32_t,
       static_cast<int8_t>(a) + static_cast<int16_t>(b) + static_cast<uint8_t>(c));
}

// 16-bit arithmetic is that of float, rounded once: 11 (8) bits of fraction twice fit into 24.
template <class Half, class F, class Host>
void compare_halves(const char* name, F device, Host host) {
  const std::vector<uint16_t> a = random_values<uint16_t>(kSize, 1),
                              b = random_values<uint16_t>(kSize, 2);
  const DeviceVector<uint16_t> da(a), db(b), out(kSize);
  apply<<<(kSize + 127) / 128, 128>>>(da.data(), db.data(), db.data(), out.data(), device);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<uint16_t> got = out.host();
  for (size_t i = 0; i < kSize; ++i) {
    const float x = static_cast<float>(std::bit_cast<Half>(a[i])),
                y = static_cast<float>(std::bit_cast<Half>(b[i]));
    const float expected = static_cast<float>(Half(host(x, y))),
                value = static_cast<float>(std::bit_cast<Half>(got[i]));
    ASSERT_TRUE(same(value, expected))
        << name << "(" << x << ", " << y << ") is " << value << ", expected " << expected;
  }
}
#define HALVES(Half, Raw, device, host)                             \
  compare_halves<Half>(                                             \
      #device,                                                      \
      [] __device__(uint16_t x, uint16_t y, uint16_t) -> uint16_t { \
        const Half a{Raw{x}}, b{Raw{y}};                            \
        return Raw(device).x;                                       \
      },                                                            \
      [](float a, float b) { return host; })
void check_halves() {
  HALVES(__half, __half_raw, __hadd(a, b), a + b);
  HALVES(__half, __half_raw, __hsub(a, b), a - b);
  HALVES(__half, __half_raw, __hmul(a, b), a * b);
  HALVES(__half, __half_raw, __hneg(__habs(a)), -std::fabs(a));
  HALVES(__half, __half_raw, __hmin(a, b), least(a, b));
  HALVES(__half, __half_raw, __low2half(__hadd2(__halves2half2(a, b), __halves2half2(b, a))),
         a + b);
  HALVES(__half, __half_raw, __high2half(__hmul2(__halves2half2(b, a), __halves2half2(a, b))),
         a * b);
  HALVES(__half, __half_raw, __hlt(a, b) ? a : b, a < b ? a : b);
}
void check_bfloats() {
  HALVES(__nv_bfloat16, __nv_bfloat16_raw, __hadd(a, b), a + b);
  HALVES(__nv_bfloat16, __nv_bfloat16_raw, __hmul(a, b), a * b);
  HALVES(__nv_bfloat16, __nv_bfloat16_raw, __hmax(a, b), most(a, b));
  HALVES(__nv_bfloat16, __nv_bfloat16_raw,
         __low2bfloat16(__hmul2(__halves2bfloat162(a, b), __halves2bfloat162(b, a))), a * b);
}

class ArithmeticTest : public EmulatorTest {};
TEST_F(ArithmeticTest, Integers32) { check_integers32(); }
TEST_F(ArithmeticTest, BitsAndBytes) { check_bits_and_bytes(); }
TEST_F(ArithmeticTest, Integers64) { check_integers64(); }
TEST_F(ArithmeticTest, Floats) { check_floats(); }
TEST_F(ArithmeticTest, Doubles) { check_doubles(); }
TEST_F(ArithmeticTest, ConversionsOfFloats) { check_conversions_of_floats(); }
TEST_F(ArithmeticTest, Halves) { check_halves(); }
TEST_F(ArithmeticTest, Bfloats) { check_bfloats(); }

}  // namespace
}  // namespace longclock::emulator
