// SPDX-License-Identifier: Apache-2.0
// nvcuda::wmma products of every element type and both orders of each operand, by way of global and
// shared memory, against sums on the host.
#include <mma.h>

#include "device_vector.h"

namespace longclock::emulator {
namespace {

namespace wmma = nvcuda::wmma;

template <class T>
struct Storage {
  using type = T;
};
template <>
struct Storage<wmma::precision::tf32> {
  using type = float;
};

template <int kM, int kN, int kK, class In, class Out, bool kAByColumns, bool kBByColumns,
          bool kOutByColumns>
struct Product {
  static constexpr int m = kM, n = kN, k = kK;
  using Input = In;
  using Element = typename Storage<In>::type;
  using Output = Out;
  using ALayout = std::conditional_t<kAByColumns, wmma::col_major, wmma::row_major>;
  using BLayout = std::conditional_t<kBByColumns, wmma::col_major, wmma::row_major>;
  static constexpr wmma::layout_t out_layout =
      kOutByColumns ? wmma::mem_col_major : wmma::mem_row_major;
  // Lines are longer than the matrix: a stride that is taken for a size shows.
  static constexpr int lda = (kAByColumns ? m : k) + 16, ldb = (kBByColumns ? k : n) + 16;
  static constexpr int ldc = (kOutByColumns ? m : n) + 16;
  static int a_at(int i, int l) { return kAByColumns ? l * lda + i : i * lda + l; }
  static int b_at(int l, int j) { return kBByColumns ? j * ldb + l : l * ldb + j; }
  static int c_at(int i, int j) { return kOutByColumns ? j * ldc + i : i * ldc + j; }
  static constexpr int a_size = lda * (kAByColumns ? k : m), b_size = ldb * (kBByColumns ? n : k);
  static constexpr int c_size = ldc * (kOutByColumns ? n : m);
};

template <class P>
__global__ void multiply(const typename P::Element* a, const typename P::Element* b,
                         const typename P::Output* c, typename P::Output* d) {
  __shared__ alignas(32) typename P::Element shared_a[P::a_size];
  __shared__ alignas(32) typename P::Output shared_c[P::c_size];
  for (int i = static_cast<int>(threadIdx.x); i < P::a_size; i += 32) shared_a[i] = a[i];
  for (int i = static_cast<int>(threadIdx.x); i < P::c_size; i += 32) shared_c[i] = c[i];
  __syncthreads();
  wmma::fragment<wmma::matrix_a, P::m, P::n, P::k, typename P::Input, typename P::ALayout> fa;
  wmma::fragment<wmma::matrix_b, P::m, P::n, P::k, typename P::Input, typename P::BLayout> fb;
  wmma::fragment<wmma::accumulator, P::m, P::n, P::k, typename P::Output> fc, zero;
  wmma::load_matrix_sync(fa, shared_a, P::lda);
  wmma::load_matrix_sync(fb, b, P::ldb);
  wmma::load_matrix_sync(fc, shared_c, P::ldc, P::out_layout);
  wmma::fill_fragment(zero, typename P::Output(0));
  wmma::mma_sync(zero, fa, fb, zero);
  for (int i = 0; i < fc.num_elements; ++i) fc.x[i] = fc.x[i] + zero.x[i];
  wmma::store_matrix_sync(d, fc, P::ldc, P::out_layout);
}

template <class P>
struct WmmaTest : EmulatorTest {};
using Products =
    testing::Types<Product<16, 16, 16, __half, float, false, false, false>,
                   Product<16, 16, 16, __half, float, true, true, true>,
                   Product<16, 16, 16, __half, float, false, true, true>,
                   Product<16, 16, 16, __half, __half, true, false, true>,
                   Product<32, 8, 16, __half, float, false, true, false>,
                   Product<8, 32, 16, __half, float, true, false, false>,
                   Product<32, 8, 16, __half, __half, false, false, false>,
                   Product<16, 16, 16, __nv_bfloat16, float, false, true, false>,
                   Product<32, 8, 16, __nv_bfloat16, float, true, true, true>,
                   Product<8, 32, 16, __nv_bfloat16, float, false, false, true>,
                   Product<16, 16, 8, wmma::precision::tf32, float, false, true, false>,
                   Product<16, 16, 8, wmma::precision::tf32, float, true, false, true>,
                   Product<8, 8, 4, double, double, false, true, false>,
                   Product<8, 8, 4, double, double, true, false, true>,
                   Product<16, 16, 16, signed char, int, false, true, false>,
                   Product<16, 16, 16, unsigned char, int, true, false, true>,
                   Product<32, 8, 16, signed char, int, true, true, false>,
                   Product<8, 32, 16, unsigned char, int, false, false, false>>;
TYPED_TEST_SUITE(WmmaTest, Products);

TYPED_TEST(WmmaTest, IsTheProduct) {
  using P = TypeParam;
  using Element = typename P::Element;
  using Output = typename P::Output;
  const int low = std::is_same_v<Element, unsigned char> ? 0 : -4;
  const auto values = [&](int size, uint64_t seed) {
    std::vector<int> out = random_values<int>(static_cast<size_t>(size), seed);
    for (int& value : out) value = static_cast<int>((static_cast<unsigned>(value) >> 8) % 9) + low;
    return out;
  };
  const std::vector<int> a = values(P::a_size, 1), b = values(P::b_size, 2),
                         c = values(P::c_size, 3);
  const auto as = [](const std::vector<int>& from, auto zero) {
    std::vector<decltype(zero)> out;
    for (const int value : from)
      out.push_back(static_cast<decltype(zero)>(static_cast<float>(value)));
    return out;
  };
  const DeviceVector<Element> da(as(a, Element{})), db(as(b, Element{}));
  const DeviceVector<Output> dc(as(c, Output{})), dd(std::vector<Output>(P::c_size, Output{}));
  multiply<P><<<1, 32>>>(da.data(), db.data(), dc.data(), dd.data());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<Output> d = dd.host();
  for (int i = 0; i < P::m; ++i) {
    for (int j = 0; j < P::n; ++j) {
      int sum = c[P::c_at(i, j)];
      for (int l = 0; l < P::k; ++l) sum += a[P::a_at(i, l)] * b[P::b_at(l, j)];
      ASSERT_EQ(static_cast<float>(d[P::c_at(i, j)]), static_cast<float>(sum)) << i << ", " << j;
    }
  }
}

}  // namespace
}  // namespace longclock::emulator
