// SPDX-License-Identifier: Apache-2.0
#include "longclock/esu_attention/esu_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

// One query with random data, and the attention in double.
struct Attention {
  int64_t heads = 3, k, dim = 5;
  std::vector<float> u, z, mlp, context, softmax, grad;
  std::vector<int32_t> times;
  std::vector<uint8_t> valid;
  int64_t query_time = 1700000000;
  EsuAttentionParams params{};

  explicit Attention(int64_t k_in)
      : k(k_in),
        u(3 * 16),
        z(k * dim),
        context(3 * 9),
        softmax(6),
        grad(3 * 9),
        times(k),
        valid(k, 1) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < dim; ++i) u[h * 16 + i] = normal(random);
    }
    for (float& x : z) x = normal(random);
    for (float& x : grad) x = normal(random) * 0.1f;
    for (int32_t& t : times) t = static_cast<int32_t>(random() % 2000000000);
    mlp = {0.5f, 0, 0, 0, -1, -1, 0.25f};
    params.behaviours.dtype = DType::kFloat32;
    params.behaviours.keys = z.data();
    params.behaviours.key_row_stride = dim;
    params.behaviours.dim = dim;
    params.behaviours.key_time = {times.data(), false};
    params.behaviours.mask = valid.data();
    const float* w = mlp.data();
    params.behaviours.time.clocks = 1;
    params.behaviours.time.clock[0] = {86400, {w, w + 4, w + 5, w + 6, 1, 3600.0}, false};
    params.z_query_stride = k * dim;
    params.query_time = {&query_time, true};
    params.heads = heads;
    params.k = k;
    params.dim = dim;
    params.width = dim + kTimeFeatures;
    params.u = u.data();
    params.u_stride = 16;
    params.context = context.data();
    params.softmax = softmax.data();
  }

  std::vector<double> row(int64_t j) const {  // [z ; phi]
    const int64_t apart = std::llabs(times[j] % 86400 - query_time % 86400);
    const double x = static_cast<double>(std::min(apart, 86400 - apart)) / 3600.0;
    std::vector<double> out(z.begin() + j * dim, z.begin() + (j + 1) * dim);
    out.insert(out.end(), {x, std::sqrt(x), x * x, std::log1p(x)});
    return out;
  }

  // The context of one head.
  std::vector<double> expected(int64_t h) const {
    std::vector<double> out(9);
    double total = 0;
    for (int64_t j = 0; j < k; ++j) {
      if (valid[j] == 0) continue;
      const auto r = row(j);
      double alpha = 0.25 - std::max(0.5 * r[5] - 1.0, 0.0);
      for (int64_t i = 0; i < dim; ++i) alpha += u[h * 16 + i] * r[i];
      total += std::exp(alpha);
      for (int i = 0; i < 9; ++i) out[i] += std::exp(alpha) * r[i];
    }
    for (double& x : out) x = total == 0 ? 0 : x / total;
    return out;
  }

  double loss() const {
    double sum = 0;
    for (int64_t h = 0; h < heads; ++h) {
      const auto c = expected(h);
      for (int i = 0; i < 9; ++i) sum += grad[h * 9 + i] * c[i];
    }
    return sum;
  }

  // d loss / d *x by central differences of the doubles.
  double slope(float* x) {
    const float before = *x, step = 1e-2f;
    *x = before + step;
    const double up = loss(), x_up = *x;
    *x = before - step;
    const double slope = (up - loss()) / (x_up - *x);
    *x = before;
    return slope;
  }
};

TEST(EsuAttention, AgreesWithDoubles) {
  for_each_level([] {
    for (int64_t k : {1, 63, 64, 65, 1000}) {
      Attention a(k);
      for (int64_t j = 1; j < k; j += 4) {
        a.valid[j] = 0;
        for (int64_t i = 0; i < a.dim; ++i) a.z[j * a.dim + i] = NAN;
      }
      esu_attention_cpu(a.params, 0, 1);
      for (int64_t h = 0; h < a.heads; ++h) {
        const auto expected = a.expected(h);
        for (int i = 0; i < 9; ++i) {
          EXPECT_NEAR(a.context[h * 9 + i], expected[i], 2e-6 * (1 + std::fabs(expected[i]))) << k;
        }
      }
    }
  });
}

// The columns of z in three pieces: the second in a table that is looked up in, the third in rows
// of its own. The columns of a row are added up in the same order.
TEST(EsuAttention, FeaturesAreAsColumnsOfOneRow) {
  for_each_level([] {
    for (int64_t k : {1, 64, 130}) {
      Attention a(k);
      for (int64_t j = 2; j < k; j += 3) a.valid[j] = 0;
      std::vector<float> column(k);
      std::vector<int64_t> ids(k);
      for (int64_t j = 0; j < k; ++j) {
        ids[j] = a.valid[j] == 0 ? -1 : k - 1 - j;
        column[k - 1 - j] = a.z[j * 5 + 2];
      }
      EsuAttentionParams of_one = a.params, several = a.params;
      several.behaviours.dim = 2;
      several.behaviours.feature_count = 2;
      several.behaviours.features[0] = {column.data(), 1, 1, {ids.data(), true}, k};
      several.behaviours.features[1] = {a.z.data() + 3, 5, 2, {}, 0};
      std::vector<float> contexts[2], grads[2];
      for (const EsuAttentionParams& p : {of_one, several}) {
        const int i = p.behaviours.feature_count > 0 ? 1 : 0;
        esu_attention_cpu(p, 0, 1);
        contexts[i] = a.context;
        grads[i].assign(k * 5, NAN);
        const EsuAttentionBackwardParams b{p,       a.grad.data(), nullptr, grads[i].data(),
                                           nullptr, nullptr,       k,       false};
        esu_attention_backward_cpu(b, 0, 1);
      }
      EXPECT_EQ(contexts[0], contexts[1]) << k;
      EXPECT_EQ(grads[0], grads[1]) << k;
    }
  });
}

TEST(EsuAttention, OfNothingIsZero) {
  for_each_level([] {
    for (int64_t k : {0, 70}) {
      Attention a(k);
      std::fill(a.valid.begin(), a.valid.end(), 0);
      std::fill(a.context.begin(), a.context.end(), 7.0f);
      esu_attention_cpu(a.params, 0, 1);
      EXPECT_EQ(a.context, std::vector<float>(27, 0.0f));
    }
  });
}

TEST(EsuAttention, InfiniteAndMissingAlphasAsInSoftmax) {
  for_each_level([] {
    Attention a(130);
    for (int64_t i = 0; i < a.dim; ++i) a.u[i] = a.u[16 + i] = a.u[32 + i] = i == 0 ? 1.0f : 0.0f;
    for (int64_t j = 0; j < 130; ++j) a.z[j * a.dim] = j < 100 ? -INFINITY : 0.0f;
    esu_attention_cpu(a.params, 0, 1);  // 100 of weight 0 times -inf: NaN in that column alone
    EXPECT_TRUE(std::isnan(a.context[0]));
    EXPECT_TRUE(std::isfinite(a.context[1]));
    for (int64_t j = 100; j < 130; ++j) a.z[j * a.dim] = -INFINITY;
    esu_attention_cpu(a.params, 0, 1);  // all -inf
    EXPECT_TRUE(std::isnan(a.context[1]));
  });
}

TEST(EsuAttention, GradientsAgreeWithDifferences) {
  for_each_level([] {
    Attention a(70);
    for (int64_t j = 3; j < 70; j += 4) a.valid[j] = 0;
    esu_attention_cpu(a.params, 0, 1);
    std::vector<float> u_grad(3 * 5), z_grad(70 * 5, NAN), s_grad(70, NAN);
    std::vector<int32_t> s_delta(70);
    const EsuAttentionBackwardParams p{
        a.params, a.grad.data(), u_grad.data(), z_grad.data(), s_grad.data(), s_delta.data(),
        70,       true};
    esu_attention_backward_cpu(p, 0, 1);
    for (int64_t h = 0; h < 3; ++h) {
      for (int64_t i = 0; i < 5; ++i) {
        EXPECT_NEAR(u_grad[h * 5 + i], a.slope(&a.u[h * 16 + i]), 1e-4);
      }
    }
    double s_sum = 0;
    for (int64_t j = 0; j < 70; ++j) {
      s_sum += s_grad[j];
      for (int64_t i = 0; i < 5; ++i) {
        if (a.valid[j] == 0) {
          EXPECT_EQ(z_grad[j * 5 + i], 0.0f);
        } else {
          EXPECT_NEAR(z_grad[j * 5 + i], a.slope(&a.z[j * 5 + i]), 1e-4);
        }
      }
      if (a.valid[j] == 0) {
        EXPECT_EQ(s_grad[j], 0.0f);
      }
    }
    EXPECT_NEAR(s_sum, 0.0, 1e-5);  // a softmax does not feel a constant
  });
}

// 100 equal alphas share the weight evenly, however large they are; one alone has all of it.
TEST(EsuAttention, GradientsHoldForLargeAlphas) {
  for_each_level([] {
    for (float alpha : {1e2f, 1e5f, 1e8f}) {
      for (int64_t k : {1, 100}) {
        Attention a(k);
        std::fill(a.z.begin(), a.z.end(), 1.0f);
        std::fill(a.times.begin(), a.times.end(), 0);
        std::fill(a.u.begin(), a.u.end(), 0.0f);
        for (int64_t h = 0; h < 3; ++h) a.u[h * 16] = alpha;
        esu_attention_cpu(a.params, 0, 1);
        std::vector<float> z_grad(k * 5);
        const EsuAttentionBackwardParams p{a.params, a.grad.data(), nullptr, z_grad.data(),
                                           nullptr,  nullptr,       k,       false};
        esu_attention_backward_cpu(p, 0, 1);
        for (int64_t j = 0; j < k; ++j) {
          for (int64_t i = 1; i < 5; ++i) {  // u is 0 there: only p * grad is left
            const float expected = (a.grad[i] + a.grad[9 + i] + a.grad[18 + i]) / k;
            EXPECT_NEAR(z_grad[j * 5 + i], expected, 1e-5f / k) << alpha;
          }
          if (k == 1) {
            EXPECT_NEAR(z_grad[0], a.grad[0] + a.grad[9] + a.grad[18], 1e-6f) << alpha;
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace longclock
