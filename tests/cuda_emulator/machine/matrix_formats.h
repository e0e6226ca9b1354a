// SPDX-License-Identifier: Apache-2.0
// Element formats of matrices: registers to arrays of float, double or integers, and sums back. A
// register is decoded as a whole: what lies in its 128 (256) bytes, in the order of memory.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "half.h"

namespace longclock::emulator {

// `row`: of one register. Writes every element of its 32 lanes.
template <class Value>
using DecodeRow = void (*)(const std::byte* row, Value* out);

inline void decode_f16(const std::byte* row, float* out) {
  uint16_t halves[64];
  std::memcpy(halves, row, sizeof(halves));
  widen_row<Half>(halves, out, 64);
}

inline void decode_bf16(const std::byte* row, float* out) {
  uint16_t halves[64];
  std::memcpy(halves, row, sizeof(halves));
  widen_row<Bfloat>(halves, out, 64);
}

// The lower 13 bits take no part.
inline void decode_tf32(const std::byte* row, float* out) {
  uint32_t words[kWarpLanes];
  std::memcpy(words, row, sizeof(words));
  for (unsigned i = 0; i < kWarpLanes; ++i) out[i] = std::bit_cast<float>(words[i] & ~0x1fffu);
}

inline void decode_f32(const std::byte* row, float* out) { std::memcpy(out, row, 128); }
inline void decode_f64(const std::byte* row, double* out) { std::memcpy(out, row, 256); }
inline void decode_words(const std::byte* row, uint32_t* out) { std::memcpy(out, row, 128); }
inline void decode_s32(const std::byte* row, int32_t* out) { std::memcpy(out, row, 128); }

template <class Byte>
inline void decode_fp8(const std::byte* row, float* out) {
  for (unsigned i = 0; i < 128; ++i) out[i] = widen<Byte>(std::to_integer<uint32_t>(row[i]));
}

template <class Byte>
inline void decode_bytes(const std::byte* row, int32_t* out) {
  Byte bytes[128];
  std::memcpy(bytes, row, sizeof(bytes));
  for (unsigned i = 0; i < 128; ++i) out[i] = bytes[i];
}

template <bool kSigned>
inline void decode_nibbles(const std::byte* row, int32_t* out) {
  for (unsigned i = 0; i < 128; ++i) {
    const int32_t byte = std::to_integer<int32_t>(row[i]);
    const int32_t low = byte & 15, high = byte >> 4;
    out[2 * i] = kSigned ? (low ^ 8) - 8 : low;
    out[2 * i + 1] = kSigned ? (high ^ 8) - 8 : high;
  }
}

// Rounds once, to nearest even. NaN becomes the one that tensor cores make.
inline uint32_t to_f32(double value) {
  return value != value ? 0x7fffffffu : std::bit_cast<uint32_t>(static_cast<float>(value));
}

inline uint16_t to_f16(double value) { return static_cast<uint16_t>(narrow<Half>(value)); }

}  // namespace longclock::emulator
