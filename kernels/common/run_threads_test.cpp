// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "longclock/common/threads.h"

namespace longclock {
namespace {

constexpr int64_t kMuch = int64_t{1} << 30;

const Threads kInTurn{8, [](int64_t, const std::function<void()>& body) { body(); }};

TEST(RunThreads, EachElementIsDoneOnce) {
  for (const Threads& threads : {Threads{}, Threads{4}, kInTurn}) {
    for (const int64_t count : {0, 1, 3, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<size_t>(count));
      parallel_tasks(threads, count, kMuch, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++done[i];
      });
      for (const std::atomic<int>& each : done) EXPECT_EQ(each, 1);
    }
  }
}

TEST(RunThreads, TheFirstExceptionIsThrown) {
  for (const Threads& threads : {Threads{4}, kInTurn}) {
    std::atomic<int64_t> done{0};
    try {
      parallel_tasks(threads, 64, kMuch, [&](int64_t begin, int64_t end) {
        done += end - begin;
        if (begin >= 5) throw std::runtime_error(std::to_string(begin));
      });
      ADD_FAILURE();
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "5");
    }
    EXPECT_EQ(done, 64);  // the others are done all the same
  }
}

TEST(RunThreads, AsManyAsTheWorkIsWorth) {
  EXPECT_EQ(worthwhile_threads(Threads{8}, 100), 1);
  EXPECT_EQ(worthwhile_threads(Threads{8}, 32768 * 3), 3);
  EXPECT_EQ(worthwhile_threads(Threads{8}, kMuch), 8);
  EXPECT_EQ(worthwhile_threads(Threads{0}, kMuch), 1);
  std::atomic<int64_t> calls{0};
  run_on_std_threads(5, [&] { ++calls; });
  EXPECT_EQ(calls, 5);
}

}  // namespace
}  // namespace longclock
