// SPDX-License-Identifier: Apache-2.0
// The behaviours of one user that matter most to each candidate, now.
//
//   search FOLDER K NOW [THREADS]
//
// FOLDER has arrays of numpy.save(): items [N, D], float32 or float16, and of the history ids and
// key_time [T], int64, oldest first; query [C, D], the candidates; and w1 [h, 4], b1 and w2 [h] and
// b2 [1] of s(), float32. A line for each candidate is answered: index:score, best first.
#include <longclock/calls/array_search.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "npy.h"

namespace {

longclock::RowSpan rows(const Npy& array) {
  if (array.shape.size() != 2) throw std::runtime_error(array.path + " must have two dimensions");
  const auto [count, dim] = std::pair(array.shape[0], array.shape[1]);
  if (array.dtype == "<f2") return {array.as<longclock::Float16>("<f2"), count, dim};
  return {array.as<float>("<f4"), count, dim};
}

longclock::IntSpan ints(const Npy& array) {
  return {array.as<int64_t>("<i8"), array.shape.empty() ? 1 : array.shape[0]};
}

std::span<const float> floats(const Npy& array) {
  return {array.as<float>("<f4"), array.bytes.size() / sizeof(float)};
}

void run(const std::string& folder, int64_t k, int64_t now, int64_t threads) {
  const auto read = [&](const char* name) { return read_npy(folder + "/" + name + ".npy"); };
  const Npy items = read("items"), ids = read("ids"), key_time = read("key_time"),
            query = read("query"), w1 = read("w1"), b1 = read("b1"), w2 = read("w2"),
            b2 = read("b2");
  const longclock::ArraySearch arguments{.query = rows(query),
                                         .keys = rows(items),
                                         .ids = ints(ids),
                                         .key_time = ints(key_time),
                                         .query_time = {&now, 1},
                                         .time = {floats(w1), floats(b1), floats(w2), floats(b2)}};
  const int64_t candidates = arguments.query.rows;
  std::vector<float> scores(static_cast<size_t>(candidates * std::max<int64_t>(k, 0)));
  std::vector<int64_t> indices(scores.size());
  longclock::search(arguments, k, scores, indices, {.count = threads});
  for (int64_t c = 0; c < candidates; ++c) {
    const char* space = "";
    for (int64_t i = c * k; i < (c + 1) * k && indices[i] >= 0; ++i, space = " ") {
      std::printf("%s%lld:%.9g", space, static_cast<long long>(indices[i]), scores[i]);
    }
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    std::fprintf(stderr, "usage: search FOLDER K NOW [THREADS]\n");
    return 2;
  }
  try {
    run(argv[1], std::atoll(argv[2]), std::atoll(argv[3]), argc == 5 ? std::atoll(argv[4]) : 1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "search: %s\n", error.what());
    return 1;
  }
  return 0;
}
