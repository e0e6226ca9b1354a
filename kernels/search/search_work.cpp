// SPDX-License-Identifier: Apache-2.0
#include "longclock/search/search_work.h"

#include <algorithm>
#include <utility>

#include "longclock/common/range.h"
#include "longclock/common/value_checks.h"

namespace longclock {
namespace {

// Behaviours, times queries, that are worth a part of a sequence, and the least that a part has.
constexpr int64_t kMinScores = 16384;
constexpr int64_t kMinBehaviours = 2048;

}  // namespace

SearchWork::SearchWork(std::vector<Group> all, int64_t queries, int64_t width)
    : groups(std::move(all)), evaluations(0), queries_(queries), width_(width) {
  for (const Group& group : groups) evaluations += group.length;
}

int64_t SearchWork::scores() const {
  int64_t total = 0;
  for (const Group& g : groups) total += g.length * (g.query_end - g.query_begin);
  return total;
}

int64_t SearchWork::time_evaluations() const {
  int64_t times = 0;
  for (const Group& group : groups) {
    times +=
        group.length * ((group.query_end - group.query_begin + kTaskQueries - 1) / kTaskQueries);
  }
  return times;
}

const std::vector<SearchTask>& SearchWork::cut(bool into_parts, int64_t tile,
                                               const Threads& given) {
  tasks_.clear();
  // Queries of a task: as many as pay, but enough tasks for all threads.
  const int64_t threads = worthwhile_threads(given, work());
  const int64_t fair = (queries_ + 2 * threads - 1) / (2 * threads);
  const int64_t task_queries =
      std::clamp((fair + tile - 1) / tile * tile, tile, kTaskQueries / tile * tile);
  // Scores that are a fair task: a longer sequence is cut, so that no thread is left with more than
  // the others. Into few parts where there are many candidates, each of which has parts to merge.
  const bool many = queries_ > static_cast<int64_t>(groups.size());
  const int64_t task_work = scores() / (threads == 1 ? 1 : threads * (many ? 2 : 8));
  parts_ = 1;
  for (size_t index = 0; index < groups.size(); ++index) {
    const Group& g = groups[index];
    const int64_t queries = std::max<int64_t>(g.query_end - g.query_begin, 1);
    const int64_t least = std::max(kMinScores / queries, kMinBehaviours);
    const int64_t wanted =
        g.length * std::min(queries, task_queries) / std::max<int64_t>(task_work, 1);
    const int64_t most = std::max<int64_t>(g.length / least, 1);
    const int64_t parts = into_parts ? std::clamp<int64_t>(wanted, 1, most) : 1;
    const int64_t step = (g.length + parts - 1) / parts;
    parts_ = std::max(parts_, parts);
    for (int64_t q = g.query_begin; q < g.query_end; q += task_queries) {
      for (int64_t part = 0; part < parts; ++part) {
        tasks_.push_back({static_cast<int64_t>(index), q, std::min(q + task_queries, g.query_end),
                          std::min(part * step, g.length), std::min((part + 1) * step, g.length),
                          part});
      }
    }
  }
  return tasks_;
}

void check_ids(const char* op, const Behaviours& behaviours, const SearchWork& work,
               const IntArray& ids, int64_t table_rows, const std::string& argument,
               const Threads& threads) {
  const auto count = static_cast<int64_t>(work.groups.size());
  parallel_tasks(threads, count, work.evaluations, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const Group& g = work.groups[index];
      const int64_t last = g.position + g.length;
      if (all_between_cpu({ids, 0, table_rows - 1}, g.position, last)) continue;
      for (int64_t at = g.position; at < last; ++at) {
        const int64_t id = ids[at];
        if (id >= 0 && id < table_rows) continue;
        check_id(op, !is_valid(behaviours, at, g.query_time), id, table_rows, at, argument);
      }
    }
  });
}

void check_times(const char* op, const Behaviours& behaviours, const SearchWork& work,
                 const SearchTask& task) {
  const Group& group = work.groups[task.group];
  if (task.query_begin > group.query_begin) return;  // the group's first task checks them
  check_seconds(op, "key_time", behaviours.key_time, behaviours.mask, group.position + task.begin,
                group.position + task.end);
}

}  // namespace longclock
