// SPDX-License-Identifier: Apache-2.0
#include "longclock/calls/time_table_cache.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "longclock/common/fork.h"
#include "longclock/common/simd_level.h"
#include "longclock/time_similarity/time_similarity.h"

namespace longclock {
namespace {

constexpr int64_t kLargest = int64_t{1} << 20;  // elements, 4 MB
constexpr size_t kTables = 2 * kMaxClocks;

// All that the values of a table depend on, copied: the caller's parameters may change at any
// moment, by another thread's hand.
struct Key {
  struct Clock {
    double unit;
    int64_t period;
    bool operator==(const Clock&) const = default;
  };
  std::vector<float> parameters;  // one clock's after the other's
  std::vector<Clock> clocks;
  SimdLevel level;

  explicit Key(std::span<const TimeClock> given) : level(simd_level()) {
    for (const auto& [period, mlp, unread] : given) {
      clocks.push_back({mlp.unit, period});
      parameters.insert(parameters.end(), mlp.w1, mlp.w1 + kTimeFeatures * mlp.hidden);
      parameters.insert(parameters.end(), mlp.b1, mlp.b1 + mlp.hidden);
      parameters.insert(parameters.end(), mlp.w2, mlp.w2 + mlp.hidden);
      parameters.push_back(*mlp.b2);
    }
  }
  // The copied parameters of a clock as a kernel takes them. The key must outlive them.
  TimeMlp mlp(size_t clock) const {
    const size_t size = parameters.size() / clocks.size();
    const auto hidden = static_cast<int>((size - 1) / (kTimeFeatures + 2));
    const float* w1 = parameters.data() + clock * size;
    const float *b1 = w1 + kTimeFeatures * hidden, *w2 = b1 + hidden;
    const auto& [unit, period] = clocks[clock];
    return {w1, b1, w2, w2 + hidden, hidden, unit, period == kElapsed};
  }
  // Bit by bit: NaN is like itself, and -0 unlike 0.
  bool operator==(const Key& other) const {
    return clocks == other.clocks && level == other.level &&
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

// Of the deltas of the longest circle, or of the time elapsed.
std::shared_ptr<const TimeTable> built(const Key& key, int64_t size, const Threads& threads) {
  std::vector<float> s(static_cast<size_t>(size)), more(static_cast<size_t>(size));
  std::vector<int32_t> deltas(static_cast<size_t>(size));
  for (size_t c = 0; c < key.clocks.size(); ++c) {
    const TimeMlp mlp = key.mlp(c);
    const int64_t period = key.clocks[c].period;
    std::iota(deltas.begin(), deltas.end(), 0);
    for (int32_t& delta : deltas) {
      delta = period == kElapsed
                  ? elapsed_seconds(delta)
                  : static_cast<int32_t>(std::min(delta % period, period - delta % period));
    }
    const TimeSimilarityParams params{
        {deltas.data(), false}, size, mlp, (c == 0 ? s : more).data()};
    parallel_elements(threads, size,
                      [&](int64_t begin, int64_t end) { time_similarity_cpu(params, begin, end); });
    for (size_t i = 0; c > 0 && i < s.size(); ++i) s[i] += more[i];
  }
  const bool several = key.clocks.size() > 1;
  return std::make_shared<TimeTable>(std::move(s), key.mlp(0).elapsed, several);
}

int64_t size_of(const TimeClock& clock) {
  return clock.period == kElapsed ? kElapsedPlaces : clock.period / 2 + 1;
}

// How many of the clocks from `begin` on have periods that divide the longest of theirs: the deltas
// of that tell those of the others. Sets `longest` to it.
int joint_clocks(const TimeTerm& time, int begin, int* longest) {
  *longest = begin;
  int end = begin + 1;
  int64_t period = time.clock[begin].period;
  for (; period != kElapsed && end < time.clocks; ++end) {
    const int64_t next = time.clock[end].period;
    if (next == kElapsed || (period % next != 0 && next % period != 0)) break;
    if (next > period) {
      *longest = end;
      period = next;
    }
  }
  return end - begin;
}

}  // namespace

std::shared_ptr<const TimeTable> time_table(std::span<const TimeClock> clocks, int64_t evaluations,
                                            const Threads& threads) {
  int64_t size = 0;
  for (const TimeClock& clock : clocks) size = std::max(size, size_of(clock));
  if (size > kLargest || evaluations == 0) return nullptr;
  const Key key(clocks);
  {
    const std::lock_guard lock(mutex);
    Entry& entry = entry_of(key);
    entry.evaluations += evaluations;
    if (entry.table != nullptr || entry.evaluations < 2 * size) return entry.table;
  }
  std::shared_ptr<const TimeTable> table = built(key, size, threads);
  if (simd_level() != key.level) return table;  // it was changed in between: not what the key says
  const std::lock_guard lock(mutex);
  entry_of(key).table = table;
  return table;
}

TimeTables find_time_tables(TimeTerm* time, int64_t evaluations, const Threads& threads) {
  TimeTables tables;
  int lookups = 0;
  for (int c = 0; c < time->clocks;) {
    TimeLookup& lookup = time->lookup[lookups++];
    const int count = joint_clocks(*time, c, &lookup.clock);
    tables.push_back(
        time_table({time->clock + c, static_cast<size_t>(count)}, evaluations, threads));
    if (tables.back() == nullptr) return {};  // on the spot, all of it
    lookup.table = tables.back().get();
    c += count;
  }
  time->lookups = lookups;
  return tables;
}

TimeTables find_search_tables(TimeTerm* time, int64_t evaluations, const Threads& threads) {
  TimeTables tables = find_time_tables(time, evaluations, threads);
  for (int c = 0; c < time->clocks; ++c) time->clock[c].unread = time->lookups > 0;
  for (int i = 0; i < time->lookups; ++i) time->clock[time->lookup[i].clock].unread = false;
  return tables;
}

}  // namespace longclock
