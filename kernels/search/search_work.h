// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "longclock/common/threads.h"
#include "longclock/search/behaviours.h"

namespace longclock {

// What a search on the CPU has to do: its groups, and the tasks that they are cut into.
class SearchWork {
 public:
  // width: of a behaviour's row and its features.
  SearchWork(std::vector<Group> groups, int64_t queries, int64_t width);

  // How many scores there are, one for every query and behaviour that it sees.
  int64_t scores() const;
  // The operations that they take, in units of about one element read.
  int64_t work() const { return scores() * (width_ + 8); }
  // How often s is computed: once a behaviour for each task's queries.
  int64_t time_evaluations() const;

  // Tasks that cover everything; long groups are cut into parts only where there are fewer tasks
  // than threads. Queries are cut at multiples of `tile`. Sets parts() to the largest number of
  // parts of a group.
  const std::vector<SearchTask>& cut(bool into_parts, int64_t tile, const Threads& threads);
  int64_t parts() const { return parts_; }

  std::vector<Group> groups;
  int64_t evaluations;  // behaviours of all groups

 private:
  int64_t queries_, width_;
  std::vector<SearchTask> tasks_;
  int64_t parts_ = 1;
};

// That ids of all groups' behaviours are rows of their table, but for those that are not valid.
void check_ids(const char* op, const Behaviours& behaviours, const SearchWork& work,
               const IntArray& ids, int64_t table_rows, const std::string& argument,
               const Threads& threads);

// That the times that a task reads are seconds.
void check_times(const char* op, const Behaviours& behaviours, const SearchWork& work,
                 const SearchTask& task);

// Calls kernel(begin, end) on ranges of the tasks. Their times are checked just before they are
// read: a pass of its own would fetch them twice from memory.
template <class Kernel>
void run_tasks(const char* op, const Behaviours& behaviours, const SearchWork& work,
               const std::vector<SearchTask>& tasks, const Threads& threads, const Kernel& kernel) {
  parallel_tasks(threads, static_cast<int64_t>(tasks.size()), work.work(),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t task = begin; task < end; ++task) {
                     check_times(op, behaviours, work, tasks[task]);
                   }
                   kernel(begin, end);
                 });
}

}  // namespace longclock
