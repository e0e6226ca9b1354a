// SPDX-License-Identifier: Apache-2.0
// Elementary functions as straight-line code, so that loops over them vectorise, and so that an
// element's bits do not depend on where in a vector, block or table it is computed. Coefficients
// are our own weighted least-squares (Lawson) fits; the errors stated are those of the fits.
#pragma once

#include "longclock/common/simd-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {

// log(1 + x) for x > -1, within 2 ulp: 1 + x = 2^e m with m in [sqrt(1/2), sqrt(2)), a polynomial
// of relative error 1e-9 in m - 1, and the rounding of 1 + x put back to first order.
inline float log1p(float x) {
  const float y = x + 1.0f;
  const float lost = (x - (y - 1.0f)) / y;
  const uint32_t shifted = float_to_bits(y) - 0x3f3504f3u;  // sqrt(1/2)
  const int32_t exponent = static_cast<int32_t>(shifted) >> 23;
  const float f = bits_to_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  float p = 0.0691542476f;
  p = fma(p, f, -0.117898352f);
  p = fma(p, f, 0.118729658f);
  p = fma(p, f, -0.123843431f);
  p = fma(p, f, 0.142186582f);
  p = fma(p, f, -0.166692510f);
  p = fma(p, f, 0.200022265f);
  p = fma(p, f, -0.249999866f);
  p = fma(p, f, 0.333333105f);
  const float f2 = f * f;
  const float e = static_cast<float>(exponent);
  // ln 2 in two parts, the first with trailing zeros so that its product with e is exact.
  float low = fma(e, -2.12194440e-4f, fma(f * f2, p, lost));
  low = fma(f2, -0.5f, low);
  const float value = fma(e, 0.693359375f, f + low);
  return y > 0.0f ? (y < __builtin_inff() ? value : y)
                  : (y == 0.0f ? -__builtin_inff() : __builtin_nanf(""));
}

// exp(x) for x <= 0, within 2 ulp, 0 below -87.3 (no subnormals); NaN stays NaN.
inline float exp_negative(float x) {
  const float shifted = fma(x, 1.44269504f, 12582912.0f);  // 1.5 * 2^23: rounds to an integer
  const float n = shifted - 12582912.0f;
  const float r = fma(n, 2.12194440e-4f, fma(n, -0.693359375f, x));
  float p = 1.99183822e-4f;
  p = fma(p, r, 1.39460713e-3f);
  p = fma(p, r, 8.33326392e-3f);
  p = fma(p, r, 4.16662693e-2f);
  p = fma(p, r, 1.66666672e-1f);
  p = fma(p, r, 0.5f);
  const float value = fma(r * r, p, r) + 1.0f;
  const float power = bits_to_float((float_to_bits(shifted) - 0x4b400000u + 127u) << 23);
  return x < -87.3f ? 0.0f : value * power;
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
