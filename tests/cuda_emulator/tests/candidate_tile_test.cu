// SPDX-License-Identifier: Apache-2.0
// Needs: nvidia-cutlass
// The registers of the many-candidate sweeps against CuTe's layouts of the same instructions, and
// the products of a tile against a plain loop.
#include <algorithm>
#include <cute/atom/mma_traits_sm80.hpp>
#include <random>

#include "device_vector.h"
#include "longclock/search/candidate_tile.cuh"

namespace longclock {
namespace {

using emulator::DeviceVector;

template <class Op>
using Traits = cute::MMA_Traits<Op>;

// CuTe's layouts map (lane, element) to row + rows * column, A and C by rows of M, B by rows of N.
struct Place {
  int row, column;
  bool operator==(const Place&) const = default;
};
template <class Layout>
Place place_in(Layout layout, int rows, int lane, int element) {
  const int at = static_cast<int>(layout(lane, element));
  return {at % rows, at / rows};
}

// Element `element` of this lane after load_matrices(), of `size` bytes: register and place in it.
struct Loaded {
  int matrix, word_lane, sub;
};
Loaded loaded(int lane, int element, int size) {
  const int per_word = 4 / size;
  return {element / per_word, lane / 4, element % per_word};
}

template <class T, class Op>
void check_operands() {
  constexpr int kPiece = kVector16<T>, kSize = sizeof(T);
  constexpr int kElements = 16 / kSize;  // of A's four registers
  typename Traits<Op>::ALayout a;
  typename Traits<Op>::BLayout b;
  typename Traits<Op>::CLayout c;
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < kElements; ++i) {
      const Loaded from = loaded(lane, i, kSize);
      const int namer = 8 * from.matrix + from.word_lane;
      const int column = Fragments::a_piece(namer) * kPiece + lane % 4 * (4 / kSize) + from.sub;
      EXPECT_EQ(place_in(a, 16, lane, i), (Place{Fragments::a_row(namer), column}))
          << "A, lane " << lane << ", element " << i;
    }
    // The two mma that one load of B feeds: 8 and 16 bits, of two times eight keys; 32 bits, two
    // steps.
    for (int mma = 0; mma < 2; ++mma) {
      for (int i = 0; i < kElements / 2; ++i) {
        const Loaded from = loaded(lane, mma * kElements / 2 + i, kSize);
        const int namer = 8 * from.matrix + from.word_lane;
        const int row = Fragments::b_row<T>(namer) - (kSize <= 2 ? 8 * mma : 0);
        const int column = Fragments::b_piece<T>(namer) * kPiece + lane % 4 * (4 / kSize) +
                           from.sub - (kSize == 4 ? 8 * mma : 0);
        EXPECT_EQ(place_in(b, 8, lane, i), (Place{row, column}))
            << "B, lane " << lane << ", mma " << mma << ", element " << i;
      }
    }
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(place_in(c, 16, lane, i),
                (Place{Fragments::c_candidate(lane, i), Fragments::c_column(lane, i)}))
          << "C, lane " << lane << ", element " << i;
    }
  }
}

TEST(CandidateTile, FragmentsAreThoseOfCute) {
  check_operands<Float16, cute::SM80_16x8x16_F32F16F16F32_TN>();
  check_operands<BFloat16, cute::SM80_16x8x16_F32BF16BF16F32_TN>();
  check_operands<float, cute::SM80_16x8x8_F32TF32TF32F32_TN>();
  check_operands<Int8By<int8_t>, cute::SM80_16x8x32_S32S8S8S32_TN>();
}

TEST(CandidateTile, KeysOfALaneFollowEachOther) {
  for (int key = 0; key < kTileKeys; ++key) EXPECT_EQ(key_of_row(row_of_key(key)), key);
  for (int lane = 0; lane < 4; ++lane) {
    for (int i = 0; i < kDelegateKeys; ++i) {  // register i % 2 of the mma of eight rows i / 2
      EXPECT_EQ(key_of_row(i / 2 * 8 + Fragments::c_column(lane, i % 2)), kDelegateKeys * lane + i);
    }
  }
}

// One warp: products [candidate][key] of swizzled rows.
template <class T, int kRowBytes>
__global__ void tile_kernel(const T* candidates, const T* keys, float* products) {
  using Tile = CandidateTile<T, kRowBytes>;
  constexpr int kColumns = kRowBytes / sizeof(T);
  extern __shared__ __align__(1024) char memory[];
  const auto store = [&](const T* from, int rows, char* to, bool are_keys) {
    for (int i = threadIdx.x; i < rows * kColumns; i += kWarp) {
      const int row = are_keys ? row_of_key(i / kColumns) : i / kColumns;
      const int byte = i % kColumns * static_cast<int>(sizeof(T));
      *reinterpret_cast<T*>(to + swizzled<kRowBytes>(row, byte / 16) + byte % 16) = from[i];
    }
  };
  char* const key_rows = memory + Tile::kWarpCandidates * kRowBytes;
  store(candidates, Tile::kWarpCandidates, memory, false);
  store(keys, kWarpKeys, key_rows, true);
  __syncthreads();
  Tile tile;
  tile.load(shared_address(memory));
  const int lane = lane_index();
  for (int step = 0; step < Tile::kSteps; ++step) {
    typename Tile::Products out;
    tile.multiply(shared_address(key_rows) + Tile::lane_place(), step, out);
    for (int group = 0; group < Tile::kGroups; ++group) {
      for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < Tile::kLaneKeys; ++i) {
          const int candidate = group * 16 + half * 8 + Fragments::c_candidate(lane, 0);
          const int key =
              Fragments::c_column(lane, 0) / 2 * kDelegateKeys + step * Tile::kLaneKeys + i;
          products[candidate * kWarpKeys + key] = out[group][half][i];
        }
      }
    }
  }
}

float widened(float x) { return x; }
float widened(Int8By<int8_t> x) { return x.value; }
float widened(Float16 x) { return __half2float(__ushort_as_half(x.bits)); }
float widened(BFloat16 x) { return __bfloat162float(__ushort_as_bfloat16(x.bits)); }
template <class T>
T narrowed(float x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else if constexpr (sizeof(T) == 1) {
    return {static_cast<int8_t>(std::clamp(40.0f * x, -128.0f, 127.0f))};
  } else if constexpr (std::is_same_v<T, Float16>) {
    return {__half_as_ushort(__float2half_rn(x))};
  } else {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  }
}

template <class T, int kRowBytes>
void check_products() {
  using Tile = CandidateTile<T, kRowBytes>;
  constexpr int kColumns = kRowBytes / sizeof(T);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<T> candidates(Tile::kWarpCandidates * kColumns), keys(kWarpKeys * kColumns);
  for (T& x : candidates) x = narrowed<T>(normal(random));
  for (T& x : keys) x = narrowed<T>(normal(random));
  DeviceVector<T> a(candidates), b(keys);
  DeviceVector<float> out(static_cast<size_t>(Tile::kWarpCandidates * kWarpKeys));
  tile_kernel<T, kRowBytes><<<1, kWarp, (Tile::kWarpCandidates + kWarpKeys) * kRowBytes>>>(
      a.data(), b.data(), out.data());
  EXPECT_CUDA(cudaDeviceSynchronize());
  const std::vector<float> products = out.host();
  for (int i = 0; i < Tile::kWarpCandidates; ++i) {
    for (int j = 0; j < kWarpKeys; ++j) {
      double exact = 0.0, size = 0.0;
      for (int d = 0; d < kColumns; ++d) {
        const double product =
            double{widened(candidates[i * kColumns + d])} * widened(keys[j * kColumns + d]);
        exact += product;
        size += std::abs(product);
      }
      // Rounding of sums; of 32 bits also what three products leave out.
      ASSERT_NEAR(products[i * kWarpKeys + j], exact, size * 0x1p-21) << i << ", " << j;
    }
  }
}

TEST(CandidateTile, ProductsAreThoseOfAPlainLoop) {
  check_products<Float16, 128>();
  check_products<Float16, 256>();
  check_products<Float16, 512>();
  check_products<BFloat16, 256>();
  check_products<float, 128>();
  check_products<float, 256>();
  check_products<float, 512>();
  check_products<Int8By<int8_t>, 128>();
  check_products<Int8By<int8_t>, 256>();
  check_products<Int8By<int8_t>, 512>();
}

}  // namespace
}  // namespace longclock
