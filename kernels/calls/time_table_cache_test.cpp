// SPDX-License-Identifier: Apache-2.0
// The kept tables of s while many threads search.
#include "longclock/calls/time_table_cache.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "longclock/time_similarity/time_similarity.h"

namespace longclock {
namespace {

constexpr int kHidden = 8;
constexpr int64_t kPeriod = 20000, kSize = kPeriod / 2 + 1;
constexpr unsigned kWeights = 2 * kMaxClocks + 2;  // more than tables are kept

struct Weights {
  std::vector<float> values = std::vector<float>(time_mlp_size(kHidden));

  explicit Weights(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& x : values) x = normal(random);
  }
  TimeMlp mlp() const {
    const float* w = values.data();
    return {w, w + 4 * kHidden, w + 5 * kHidden, w + 6 * kHidden, kHidden, 3600.0};
  }
  std::vector<float> s() const {
    std::vector<int32_t> delta(kSize);
    for (int64_t i = 0; i < kSize; ++i) delta[i] = static_cast<int32_t>(i);
    std::vector<float> out(kSize);
    time_similarity_cpu({{delta.data(), false}, kSize, mlp(), out.data()}, 0, kSize);
    return out;
  }
};

// Enough evaluations for a table to pay.
std::shared_ptr<const TimeTable> table_of(const Weights& weights) {
  const TimeClock clock{kPeriod, weights.mlp(), false};
  return time_table({&clock, 1}, 2 * kSize, Threads{4});
}

bool holds(const TimeTable& table, const std::vector<float>& s) {
  return std::equal(s.begin(), s.end(), table.s);
}

// More weights than tables are kept, each of them asked for by all threads.
TEST(TimeTables, OfManyThreadsAreThoseOfTheirWeights) {
  std::vector<Weights> weights;
  std::vector<std::vector<float>> s;
  for (unsigned seed = 0; seed < kWeights; ++seed) {
    weights.emplace_back(seed);
    s.push_back(weights.back().s());
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (size_t call = 0; call < 60; ++call) {
        const size_t which = (call / 3 + i) % kWeights;
        const auto table = table_of(weights[which]);
        wrong += table == nullptr || !holds(*table, s[which]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(TimeTables, AForkedChildFindsThemUnlocked) {
  const Weights weights(0), others(1);
  const std::vector<float> s = weights.s();
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!done) table_of(others);
    });
  }
  for (int i = 0; i < 200; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // ends a child that hangs
      _exit(holds(*table_of(weights), s) ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    if (status != 0) {
      ADD_FAILURE() << "child " << i << " ended with status " << status;
      break;
    }
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
}

// The race is the caller's, and not to be reported.
__attribute__((no_sanitize("thread"))) void overwrite(const Weights& from, Weights* to) {
  const volatile float* values = from.values.data();
  volatile float* live = to->values.data();
  for (size_t i = 0; i < from.values.size(); ++i) live[i] = values[i];
}

// A search beside an update may find either's s, or parts of both; one after it may not.
TEST(TimeTables, AnUpdateBesideASearchLeavesNoneThatIsWrong) {
  for (unsigned round = 0; round < 100; ++round) {
    const Weights old(2 * round), fresh(2 * round + 1);
    Weights live = old;
    std::atomic<bool> begun{false};
    std::thread search([&] {
      begun = true;
      table_of(live);
    });
    while (!begun) std::this_thread::yield();
    for (unsigned spin = 0; spin < round * 20; ++spin)
      std::atomic_signal_fence(std::memory_order_seq_cst);
    overwrite(fresh, &live);
    search.join();
    ASSERT_TRUE(holds(*table_of(old), old.s())) << round;
    ASSERT_TRUE(holds(*table_of(fresh), fresh.s())) << round;
  }
}

}  // namespace
}  // namespace longclock
