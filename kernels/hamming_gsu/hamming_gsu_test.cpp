// SPDX-License-Identifier: Apache-2.0
#include "longclock/hamming_gsu/hamming_gsu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <functional>

#include "longclock/common/levels_test.h"
#include "longclock/search/search_test.h"

namespace longclock {
namespace {

// Its histories, with hashes in place of floats: of few bits that differ, so that most are ties.
struct HashFixture : SearchFixture {
  std::vector<uint64_t> words, hashes;

  HashFixture(int64_t s, int64_t c, int64_t m, int64_t w)
      : SearchFixture(s, c, m, w), words(s * m * w), hashes(s * c * w) {
    std::mt19937_64 random(5);
    for (auto* rows : {&words, &hashes}) {
      for (uint64_t& word : *rows) word = random() & random() & random();
    }
    behaviours.dtype = DType::kInt64;
    behaviours.keys = words.data();
  }

  std::vector<TopKEntry> expected(int64_t query) const {
    const int64_t sequence = query / candidates;
    std::vector<TopKEntry> entries;
    for (int64_t m = 0; m < length; ++m) {
      if (!valid(sequence, m)) continue;
      int bits = 0;
      for (int64_t w = 0; w < dim; ++w) {
        const uint64_t key = words[(sequence * length + m) * dim + w];
        bits += std::popcount(key ^ hashes[query * dim + w]);
      }
      entries.push_back(topk_entry(static_cast<float>(-bits), m));
    }
    std::sort(entries.begin(), entries.end(), std::greater<>());
    return entries;
  }

  void check(int64_t k, int64_t task_queries, int64_t parts) const {
    const int64_t queries = sequences * candidates;
    std::vector<float> scores(queries * k);
    std::vector<int64_t> indices(queries * k);
    std::vector<TopKEntry> entries(queries * parts * k);
    const auto cut = tasks(task_queries, parts);
    const HammingGsuParams p{{behaviours, groups.data(), cut.data(), k, parts, entries.data(),
                              scores.data(), indices.data()},
                             hashes.data()};
    hamming_gsu_cpu(p, 0, static_cast<int64_t>(cut.size()));
    if (parts > 1) search_merge_cpu(p, 0, queries);
    for (int64_t q = 0; q < queries; ++q) {
      const auto best = expected(q);
      for (int64_t i = 0; i < k; ++i) {
        const bool some = i < static_cast<int64_t>(best.size());
        ASSERT_EQ(indices[q * k + i], some ? entry_index(best[i]) : -1);
        ASSERT_EQ(scores[q * k + i], some ? entry_score(best[i]) : -INFINITY);
      }
    }
  }
};

TEST(HammingGsu, FindsTheNearestInOrder) {
  for_each_level([] {
    for (int64_t words : {1, 2, 3}) {
      HashFixture f(2, 3, 5000, words);  // three blocks
      for (int64_t k : {1, 100, 2048}) {
        f.check(k, 2, 1);
        f.check(k, kTaskQueries, 3);
      }
      f.behaviours.mask = f.mask.data();
      for (size_t i = 0; i < f.mask.size(); ++i) f.mask[i] = i % 4 == 1;
      f.behaviours.exclude_future = true;
      f.check(100, kTaskQueries, 1);
      std::fill(f.mask.begin(), f.mask.begin() + 4000, uint8_t{0});  // nothing, then something
      f.check(100, kTaskQueries, 1);
    }
  });
}

// The data's order changes what is done, never what is found.
TEST(HammingGsu, FindsThemWhateverTheirOrder) {
  for_each_level([] {
    HashFixture f(1, 1, 9000, 1);
    f.hashes[0] = 0;
    for (int order : {0, 1, 2, 3}) {
      for (int64_t m = 0; m < f.length; ++m) {
        const int64_t bits = order == 0   ? m * 65 / f.length          // ever farther
                             : order == 1 ? 64 - m * 65 / f.length     // ever nearer
                             : order == 2 ? 40                         // all equal
                                          : (m < 4500 ? 64 : m % 65);  // half equal, the farthest
        f.words[m] = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
      }
      f.check(100, 1, 1);
      f.check(2048, 1, 2);
    }
  });
}

}  // namespace
}  // namespace longclock
