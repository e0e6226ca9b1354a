// SPDX-License-Identifier: Apache-2.0
#include "common/time_table_cache.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "common/fork.h"
#include "common/parallel.h"
#include "longclock/common/simd_level.h"
#include "longclock/time_similarity/time_similarity.h"

namespace longclock {
namespace {

constexpr int64_t kLargest = int64_t{1} << 20;  // elements, 4 MB
constexpr size_t kTables = 4;

// All that the values of a table depend on, copied: the caller's parameters may change at any
// moment, by another thread's hand.
struct Key {
  std::vector<float> parameters;
  double unit;
  int64_t period;
  SimdLevel level;

  Key(const TimeMlp& mlp, int64_t period) : unit(mlp.unit), period(period), level(simd_level()) {
    parameters.reserve(static_cast<size_t>(time_mlp_size(mlp.hidden)));
    parameters.insert(parameters.end(), mlp.w1, mlp.w1 + kTimeFeatures * mlp.hidden);
    parameters.insert(parameters.end(), mlp.b1, mlp.b1 + mlp.hidden);
    parameters.insert(parameters.end(), mlp.w2, mlp.w2 + mlp.hidden);
    parameters.push_back(*mlp.b2);
  }
  // The copied parameters as a kernel takes them. The key must outlive them.
  TimeMlp mlp() const {
    const auto hidden = static_cast<int>((parameters.size() - 1) / (kTimeFeatures + 2));
    const float* w1 = parameters.data();
    const float *b1 = w1 + kTimeFeatures * hidden, *w2 = b1 + hidden;
    return {w1, b1, w2, w2 + hidden, hidden, unit};
  }
  // Bit by bit: NaN is like itself, and -0 unlike 0.
  bool operator==(const Key& other) const {
    return unit == other.unit && period == other.period && level == other.level &&
           parameters.size() == other.parameters.size() &&
           std::memcmp(parameters.data(), other.parameters.data(),
                       parameters.size() * sizeof(float)) == 0;
  }
};

struct Entry {
  Key key;
  int64_t evaluations = 0;
  std::shared_ptr<const TimeTable> table;
};

GlobalMutex mutex;
// The last used first; never destroyed, for a thread may search until the process has ended.
std::vector<Entry>& entries = *new std::vector<Entry>;

// Under the mutex.
Entry& entry_of(const Key& key) {
  auto found = std::find_if(entries.begin(), entries.end(),
                            [&](const Entry& entry) { return entry.key == key; });
  if (found == entries.end()) {
    if (entries.size() == kTables) entries.pop_back();
    found = entries.insert(entries.end(), Entry{key, 0, nullptr});
  }
  std::rotate(entries.begin(), found, found + 1);
  return entries.front();
}

std::shared_ptr<const TimeTable> built(const TimeMlp& mlp, int64_t size) {
  std::vector<int32_t> deltas(static_cast<size_t>(size));
  std::iota(deltas.begin(), deltas.end(), 0);
  std::vector<float> s(static_cast<size_t>(size));
  const TimeSimilarityParams params{{deltas.data(), false}, size, mlp, s.data()};
  parallel_elements(size,
                    [&](int64_t begin, int64_t end) { time_similarity_cpu(params, begin, end); });
  return std::make_shared<TimeTable>(std::move(s));
}

}  // namespace

std::shared_ptr<const TimeTable> time_table(const TimeMlp& mlp, int64_t period,
                                            int64_t evaluations) {
  const int64_t size = period / 2 + 1;
  if (size > kLargest || evaluations == 0) return nullptr;
  const Key key(mlp, period);
  {
    const std::lock_guard lock(mutex);
    Entry& entry = entry_of(key);
    entry.evaluations += evaluations;
    if (entry.table != nullptr || entry.evaluations < 2 * size) return entry.table;
  }
  std::shared_ptr<const TimeTable> table = built(key.mlp(), size);
  if (simd_level() != key.level) return table;  // it was changed in between: not what the key says
  const std::lock_guard lock(mutex);
  entry_of(key).table = table;
  return table;
}

}  // namespace longclock
