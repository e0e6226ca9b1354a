// SPDX-License-Identifier: Apache-2.0
#include "longclock/time_similarity/time_similarity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "longclock/common/levels_test.h"

namespace longclock {
namespace {

struct Mlp {
  std::vector<float> values;
  TimeMlp view;
  explicit Mlp(int hidden, double unit = 3600.0) : values(time_mlp_size(hidden)) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (float& x : values) x = normal(random);
    const float* w1 = values.data();
    view = {w1, w1 + 4 * hidden, w1 + 5 * hidden, w1 + 6 * hidden, hidden, unit};
  }
};

std::vector<double> features(int32_t delta, double unit) {
  const double x = delta / unit;
  return {x, std::sqrt(x), x * x, std::log1p(x)};
}

// s, and the gradient of each parameter where grad is given.
double expected_s(const TimeMlp& mlp, int32_t delta, double grad, std::vector<double>* gradient) {
  const auto phi = features(delta, mlp.unit);
  double s = *mlp.b2;
  for (int j = 0; j < mlp.hidden; ++j) {
    double h = mlp.b1[j];
    for (int f = 0; f < 4; ++f) h += double{mlp.w1[4 * j + f]} * phi[f];
    if (h <= 0) continue;
    s += h * mlp.w2[j];
    if (gradient == nullptr) continue;
    for (int f = 0; f < 4; ++f) (*gradient)[4 * j + f] += grad * mlp.w2[j] * phi[f];
    (*gradient)[4 * mlp.hidden + j] += grad * mlp.w2[j];
    (*gradient)[5 * mlp.hidden + j] += grad * h;
  }
  if (gradient != nullptr) gradient->back() += grad;
  return s;
}

TEST(TimeSimilarity, AgreesWithDoublesOverTheDay) {
  for_each_level([] {
    for (int hidden : {1, 8, 64}) {
      const Mlp mlp(hidden);
      std::vector<int32_t> delta(43201);
      std::iota(delta.begin(), delta.end(), 0);
      std::vector<float> s(delta.size()), phi(4 * delta.size());
      time_similarity_cpu({{delta.data(), false}, 43201, mlp.view, s.data()}, 0, 43201);
      time_features_cpu({{delta.data(), false}, 43201, 3600.0, phi.data()}, 0, 43201);
      for (size_t i = 0; i < delta.size(); ++i) {
        ASSERT_NEAR(s[i], expected_s(mlp.view, delta[i], 0, nullptr), 1e-4 * hidden);
        const auto expected = features(delta[i], 3600.0);
        for (int f = 0; f < 4; ++f) ASSERT_NEAR(phi[4 * i + f], expected[f], 3e-7 * expected[f]);
      }
    }
  });
}

TEST(TimeSimilarity, BitsDoNotDependOnThePlaceInABlock) {
  for_each_level([] {
    const Mlp mlp(8);
    std::vector<int64_t> delta(1000);
    for (size_t i = 0; i < delta.size(); ++i) delta[i] = static_cast<int64_t>(i * 7919 % 43201);
    std::vector<float> whole(1000), alone(1000);
    time_similarity_cpu({{delta.data(), true}, 1000, mlp.view, whole.data()}, 0, 1000);
    for (int64_t i = 0; i < 1000; ++i) {
      time_similarity_cpu({{delta.data(), true}, 1000, mlp.view, alone.data()}, i, i + 1);
    }
    EXPECT_EQ(whole, alone);
  });
}

TEST(TimeSimilarity, GradientAgreesWithDoublesAndIgnoresZeros) {
  for_each_level([] {
    const Mlp mlp(8);
    const int64_t n = kTimeSimilarityPart + 301;
    std::vector<int32_t> delta(n);
    std::vector<float> grad(n);
    std::vector<double> expected(time_mlp_size(8)), size(time_mlp_size(8));
    for (int64_t i = 0; i < n; ++i) {
      delta[i] = static_cast<int32_t>(i * 7919 % 43201);
      grad[i] = i % 3 == 0 ? 0.0f : static_cast<float>(i % 11 - 5);
      expected_s(mlp.view, delta[i], grad[i], &expected);
      expected_s(mlp.view, delta[i], std::fabs(grad[i]), &size);
    }
    std::vector<double> partial(time_similarity_backward_parts(n) * time_mlp_size(8));
    std::vector<float> out(time_mlp_size(8));
    const TimeSimilarityBackwardParams p{
        {delta.data(), false},
        grad.data(),
        n,
        mlp.view,
        partial.data(),
        {out.data(), out.data() + 32, out.data() + 40, out.data() + 48}};
    time_similarity_backward_cpu(p, 0, time_similarity_backward_parts(n));
    time_similarity_backward_reduce_cpu(p, 0, time_mlp_size(8));
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT_NEAR(out[i], expected[i], 2e-6 * std::fabs(size[i]) + 1e-6) << i;
    }
  });
}

}  // namespace
}  // namespace longclock
