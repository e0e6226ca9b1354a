// SPDX-License-Identifier: Apache-2.0
// Rows of int8: products that are exact whatever the SIMD level, the number of candidates, and
// where rows lie.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <functional>

#include "longclock/clock_gsu/clock_gsu_found_test.h"
#include "longclock/common/levels_test.h"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/scaled_queries.h"

namespace longclock {
namespace {

constexpr DType kQueryDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kInt8};

// One sequence of random rows whose scales are powers of two, as are the queries': all is exact.
// No time term.
struct Int8Fixture : SearchFixture {
  std::vector<int8_t> values;
  std::vector<float> key_scale;

  Int8Fixture(int64_t c, int64_t m, int64_t d, DType query_dtype) : SearchFixture(1, c, m, d) {
    std::mt19937 random(7);
    mlp[5] = mlp[6] = 0;
    for (int64_t i = 0; i < m * d; ++i) {
      values.push_back(static_cast<int8_t>(static_cast<int>(random() % 256) - 128));
    }
    for (int64_t i = 0; i < m; ++i) {
      key_scale.push_back(std::ldexp(1.0f, static_cast<int>(random() % 5) - 2));
    }
    const int64_t padded = stride;
    stride = scaled_query_stride(d);
    queries.assign(c * stride, 0.0f);
    for (int64_t q = 0; q < c; ++q) {
      for (int64_t i = 0; i < d; ++i) {
        queries[q * stride + i] = static_cast<float>(random() % 255) - 127.0f;
      }
      queries[q * stride + padded] = std::ldexp(1.0f, static_cast<int>(q % 3));
    }
    behaviours.dtype = DType::kInt8;
    behaviours.query_dtype = query_dtype;
    behaviours.keys = values.data();
    behaviours.key_scale = key_scale.data();
  }

  float exact(int64_t q, int64_t m) const {
    int64_t product = 0;
    for (int64_t i = 0; i < dim; ++i) {
      product += values[m * dim + i] * static_cast<int64_t>(queries[q * stride + i]);
    }
    return queries[q * stride + stride - 16] * key_scale[m] * static_cast<float>(product);
  }

  void expect_exact(int64_t k, int64_t task_queries, int64_t parts) const {
    const Found found = search(*this, k, task_queries, parts);
    for (int64_t q = 0; q < candidates; ++q) {
      std::vector<TopKEntry> expected;
      for (int64_t m = 0; m < length; ++m) {
        if (valid(0, m)) expected.push_back(topk_entry(exact(q, m), m));
      }
      std::sort(expected.begin(), expected.end(), std::greater<>());
      for (int64_t i = 0; i < k; ++i) {
        const bool some = i < static_cast<int64_t>(expected.size());
        ASSERT_EQ(found.indices[q * k + i], some ? entry_index(expected[i]) : -1)
            << "candidate " << q << ", place " << i << ", D " << dim << ", M " << length;
        ASSERT_EQ(found.scores[q * k + i], some ? entry_score(expected[i]) : -INFINITY);
      }
    }
  }
};

TEST(Int8Search, ProductsAreExactWhateverTheSizes) {
  for_each_level([] {
    for (DType dtype : kQueryDTypes) {
      for (int64_t dim : {0, 1, 3, 4, 5, 31, 64, 65, 130}) {
        for (int64_t candidates : {1, 2, 15, 16, 37, 64}) {
          const Int8Fixture f(candidates, 700, dim, dtype);
          f.expect_exact(50, 256, 1);
          f.expect_exact(700, 32, 3);
        }
      }
    }
  });
}

TEST(Int8Search, TheLargestProductsAreExact) {
  for_each_level([] {
    for (int64_t candidates : {1, 4, 20}) {
      Int8Fixture f(candidates, 30, kMaxInt8Dim, DType::kInt8);
      for (int64_t i = 0; i < 10 * kMaxInt8Dim; ++i) f.values[i] = -128;
      for (int64_t i = 0; i < kMaxInt8Dim; ++i) f.queries[i] = i % 500 == 0 ? 126.0f : 127.0f;
      f.expect_exact(30, 256, 1);
    }
  });
}

TEST(Int8Search, PassesOverWhatIsNotThere) {
  for_each_level([] {
    for (DType dtype : kQueryDTypes) {
      for (int64_t candidates : {1, 5, 40}) {
        Int8Fixture f(candidates, 3000, 20, dtype);
        f.behaviours.mask = f.mask.data();
        for (int64_t m = 0; m < f.length; m += 3) {
          f.mask[m] = 0;
          f.key_scale[m] = std::numeric_limits<float>::quiet_NaN();
        }
        f.expect_exact(100, 40, 2);
      }
    }
  });
}

// Rows of a table that are all different, and such as repeat, whose scales belong to the table.
TEST(Int8Search, RowsOfATableHaveTheirScales) {
  for_each_level([] {
    for (DType dtype : kQueryDTypes) {
      for (int64_t rows : {1, 100, 3000}) {
        for (int64_t candidates : {1, 7, 40}) {
          Int8Fixture own(candidates, 3000, 21, dtype);
          Int8Fixture table = own;
          std::vector<int32_t> ids(3000);
          std::mt19937 random(3);
          for (int64_t m = 0; m < 3000; ++m) {
            ids[m] = static_cast<int32_t>(rows == 3000 ? 2999 - m : random() % rows);
            std::copy_n(table.values.begin() + ids[m] * 21, 21, own.values.begin() + m * 21);
            own.key_scale[m] = table.key_scale[ids[m]];
          }
          own.behaviours.keys = own.values.data();
          own.behaviours.key_scale = own.key_scale.data();
          table.behaviours.keys = table.values.data();
          table.behaviours.key_scale = table.key_scale.data();
          table.behaviours.ids = {ids.data(), false};
          own.expect_exact(100, 256, 1);
          EXPECT_EQ(search(table, 100, 256, 1), search(own, 100, 256, 1));
          EXPECT_EQ(search(table, 100, 20, 3), search(own, 100, 256, 1));
        }
      }
    }
  });
}

// Scales that round: gsu_score has the bits of the search, and few queries those of many where all
// are int8.
TEST(Int8Search, ScoresAreThoseOfGsuScore) {
  for_each_level([] {
    for (DType dtype : kQueryDTypes) {
      for (int64_t candidates : {1, 15, 40}) {
        Int8Fixture f(candidates, 900, 33, dtype);
        for (float& x : f.key_scale) x *= 0.0123f;
        for (int64_t q = 0; q < candidates; ++q) f.queries[q * f.stride + 48] = 0.77f;
        f.mlp[5] = 2;
        std::vector<float> scores(candidates * f.length);
        const auto tasks = f.tasks(kTaskQueries, 1);
        gsu_score_cpu({f.behaviours, f.queries.data(), f.stride, f.groups.data(), tasks.data(),
                       f.scale, scores.data(), false},
                      0, static_cast<int64_t>(tasks.size()));
        const Found found = search(f, 900, kTaskQueries, 1);
        for (int64_t q = 0; q < candidates; ++q) {
          for (int64_t i = 0; i < f.length; ++i) {
            const int64_t m = found.indices[q * f.length + i];
            ASSERT_EQ(found.scores[q * f.length + i], scores[q * f.length + m]);
          }
        }
        if (dtype != DType::kInt8) continue;
        Int8Fixture alone(1, 900, 33, dtype);
        alone.mlp = f.mlp;
        alone.times = f.times;
        alone.key_scale = f.key_scale;
        alone.behaviours.key_scale = alone.key_scale.data();
        std::copy_n(f.queries.begin(), f.stride, alone.queries.begin());
        const Found first = search(alone, 900, 1, 1);
        EXPECT_TRUE(std::equal(first.scores.begin(), first.scores.end(), found.scores.begin()));
        EXPECT_TRUE(std::equal(first.indices.begin(), first.indices.end(), found.indices.begin()));
      }
    }
  });
}

std::vector<float> scaled(const std::vector<float>& query, float scale, bool to_int8) {
  std::vector<float> padded((query.size() + 15) / 16 * 16);
  std::copy(query.begin(), query.end(), padded.begin());
  const auto dim = static_cast<int64_t>(query.size());
  std::vector<float> out(static_cast<size_t>(scaled_query_stride(dim)), NAN);
  scaled_queries_cpu({padded.data(), dim, scale, to_int8, out.data()}, 0, 1);
  return out;
}

TEST(ScaledQueries, RoundToTheNearestEvenIntegerOfTheLargest) {
  for_each_level([] {
    std::vector<float> query = {127, -127, 0.5f, 1.5f, -2.5f, 3.49f, -0.0f, 126.5f};
    EXPECT_EQ(scaled(query, 2, true),
              (std::vector<float>{127, -127, 0, 2, -2, 3, 0, 126, 0, 0, 0, 0, 0, 0, 0, 0,
                                  2,   0,    0, 0, 0,  0, 0, 0,   0, 0, 0, 0, 0, 0, 0, 0}));
    EXPECT_EQ(scaled({3e38f}, 1, true)[16], 3e38f / 127.0f);
    EXPECT_EQ(scaled({-1e-43f, 1e-43f}, 1, true)[0],
              -71.0f);  // 71 steps of 2^-149, whose 127th is 1
    EXPECT_EQ(scaled(query, 0.5f, false)[2], 0.5f);
    EXPECT_EQ(scaled(query, 0.5f, false)[16], 0.5f);
  });
}

TEST(ScaledQueries, WithoutASizeAreZeroAndOfNoFiniteOneHaveNoScale) {
  for_each_level([] {
    for (const float least : {0.0f, -0.0f, 0x1p-149f}) {
      EXPECT_EQ(scaled({least, 0}, 1, true)[0], 0.0f) << least;
      EXPECT_EQ(scaled({least, 0}, 1, true)[16], 0.0f) << least;
    }
    for (const float odd : {INFINITY, -INFINITY, NAN}) {
      for (size_t at : {0u, 19u}) {
        std::vector<float> query(20, 1.0f);
        query[at] = odd;
        const std::vector<float> out = scaled(query, 1, true);
        EXPECT_TRUE(std::isnan(out[32]));
        EXPECT_EQ(out[1], 0.0f);
      }
    }
  });
}

}  // namespace
}  // namespace longclock
