// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/value_checks.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "longclock/common/range.h"

namespace longclock {
namespace {

constexpr int64_t kFarthest = 100'000'000'000;  // seconds: the year 5138, or as far before 1970

}  // namespace

std::string bracketed(const int64_t* sizes, size_t count) {
  std::string text = "[";
  for (size_t i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
  return text + "]";
}

void check_shape(const char* op, const char* argument, const int64_t* sizes, size_t count,
                 std::initializer_list<Dim> dims, const char* why) {
  const auto same = [](const Dim& dim, int64_t size) { return dim.size == size; };
  if (std::equal(dims.begin(), dims.end(), sizes, sizes + count, same)) return;
  std::ostringstream names;
  const char* comma = "";
  std::vector<int64_t> expected;
  for (const Dim& dim : dims) {
    names << comma << dim.name;
    comma = ", ";
    expected.push_back(dim.size);
  }
  check(false, op, ": ", argument, " must have shape [", names.str(),
        "] = ", bracketed(expected.data(), expected.size()), " ", why, ", got ",
        bracketed(sizes, count));
}

void check_period(const char* op, int64_t period) {
  check(period >= 1 && period <= 2147483647, op,
        ": period must be from 1 to 2147483647 seconds, got ", period, "; a day is 86400");
}

void check_unit(const char* op, double unit, const char* argument) {
  check(unit > 0.0 && std::isfinite(unit) && std::isfinite(1.0 / unit), op, ": ", argument,
        " must be a positive number of seconds, got ", unit, "; an hour is 3600");
}

void check_id(const char* op, bool holds, int64_t id, int64_t table_rows, int64_t position,
              const std::string& argument) {
  if (holds) return;
  check(table_rows > 0, op, ": ", argument,
        " must be all masked out, for the table has no rows, got ", id, " at position ", position);
  check(false, op, ": ", argument, " must be from 0 to N - 1 = ", table_rows - 1, ", got ", id,
        " at position ", position, "; mask what is not there");
}

void check_second(const char* op, const char* argument, int64_t time, int64_t position) {
  if (-kFarthest <= time && time <= kFarthest) return;
  const uint64_t size = time < 0 ? -static_cast<uint64_t>(time) : static_cast<uint64_t>(time);
  const char* const unit = size < 100'000'000'000'000       ? "milliseconds are divided by 10^3"
                           : size < 100'000'000'000'000'000 ? "microseconds are divided by 10^6"
                                                            : "nanoseconds are divided by 10^9";
  check(false, op, ": ", argument, " must be seconds, from -10^11 to 10^11, got ", time,
        " at position ", position, "; ", unit);
}

void check_seconds(const char* op, const char* argument, const IntArray& times,
                   const uint8_t* counts, int64_t begin, int64_t end) {
  if (!times.is_64 || all_between_cpu({times, -kFarthest, kFarthest}, begin, end)) return;
  for (int64_t at = begin; at < end; ++at) {
    if (counts == nullptr || counts[at] != 0) check_second(op, argument, times[at], at);
  }
}

void check_k(const char* op, int64_t k) {
  check(k >= 0 && k <= 2048, op, ": k must be from 0 to 2048, got ", k,
        "; for more, score and sort");
}

void check_count(const char* op, const char* argument, int64_t count) {
  check(count <= 2147483647, op, ": ", argument, " must be at most 2147483647, got ", count);
}

}  // namespace longclock
