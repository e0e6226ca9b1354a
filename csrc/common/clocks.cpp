// SPDX-License-Identifier: Apache-2.0
#include "common/clocks.h"

#include "longclock/time_similarity/time_similarity.h"

namespace longclock {

std::tuple<Tensor, Tensor, Tensor, Tensor> time_mlp_gradient(const TimeTermArguments& arguments,
                                                             IntArray delta, const float* grad,
                                                             int64_t count) {
  const TimeTerm& time = arguments.time;
  const int hidden = time.clock[0].mlp.hidden;
  const int64_t parts = time_similarity_backward_parts(count);
  std::vector<double> partial(static_cast<size_t>(parts * time_mlp_size(hidden)));
  const TimeMlpGradients out(arguments);
  for (int c = 0; c < time.clocks; ++c) {
    const TimeSimilarityBackwardParams params{
        delta.from(c * count), grad, count, time.clock[c].mlp, partial.data(), out.view(c, hidden)};
    parallel_tasks(parts, count * 16, [&](int64_t begin, int64_t end) {
      time_similarity_backward_cpu(params, begin, end);
    });
    time_similarity_backward_reduce_cpu(params, 0, time_mlp_size(hidden));
  }
  return out.tensors;
}

namespace {

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

TimeTables find_time_tables(TimeTerm* time, int64_t evaluations) {
  TimeTables tables;
  int lookups = 0;
  for (int c = 0; c < time->clocks;) {
    TimeLookup& lookup = time->lookup[lookups++];
    const int count = joint_clocks(*time, c, &lookup.clock);
    tables.push_back(time_table({time->clock + c, static_cast<size_t>(count)}, evaluations));
    if (tables.back() == nullptr) return {};  // on the spot, all of it
    lookup.table = tables.back().get();
    c += count;
  }
  time->lookups = lookups;
  return tables;
}

}  // namespace longclock
